// Attention without stored scores, for any adapter: no subgroups, 16 KB of workgroup memory at most.
//
// One workgroup holds ROWS rows of one head in its memory and passes over all columns, COLS at a time; TEAM threads share a row.
// Rows and columns are those of attention-subgroup.wgsl:
//
//              rowsA   colsA   rowsB   colsB   outA   outB
//   forward    q       k       (o)     v              o        o  = softmax(q·kᵀ·scale + bias)·v
//   queries    q       k       dy      v       dq              dq = scale · dS·k      dS = P ∘ (dy·vᵀ − Δ)
//   keys       k       q       v       dy      dk     dv       dk = scale · dSᵀ·q     dv = Pᵀ·dy
//
// The inner dimension is `dim` for A and `vdim` for B. stats: [2, batch, heads, queries]: logsumexp and Δ = Σ dy ∘ o.
const ROWS = 16u;
const TEAM = 4u;
const COLS = 16u;
const DIM = 40u;     // dim
const VDIM = 40u;    // vdim
const DIMS = 10u;    // ⌈dim / TEAM⌉
const VDIMS = 10u;   // ⌈vdim / TEAM⌉
const ROWS_ARE_KEYS = false;
const HAS_BIAS = false;
const NEVER = -1e30;

struct Shape {
  rows: u32, cols: u32, heads: u32, blocks: u32, groups: u32, causal: u32, scale: f32,
  rowsABatch: u32, rowsAHead: u32, rowsAToken: u32, colsABatch: u32, colsAHead: u32, colsAToken: u32,
  rowsBBatch: u32, rowsBHead: u32, rowsBToken: u32, colsBBatch: u32, colsBHead: u32, colsBToken: u32,
  biasBatch: u32, biasHead: u32, biasQuery: u32, biasKey: u32,
}
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> rowsA: array<f32>;
@group(0) @binding(2) var<storage, read> colsA: array<f32>;
@group(0) @binding(3) var<storage, read> rowsB: array<f32>;
@group(0) @binding(4) var<storage, read> colsB: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> outA: array<f32>;
@group(0) @binding(8) var<storage, read_write> outB: array<f32>;
@group(0) @binding(9) var<storage, read_write> logSumExp: array<f32>;

var<workgroup> heldA: array<f32, ROWS * DIM>;
var<workgroup> heldB: array<f32, ROWS * VDIM>;
var<workgroup> weights: array<f32, ROWS * COLS>;      // scores, then P
var<workgroup> gradients: array<f32, ROWS * COLS>;    // dS

// Where this workgroup works.
struct Place { batch: u32, head: u32, row0: u32 }

fn place(index: u32) -> Place {
  let which = index / shape.blocks;
  return Place(which / shape.heads, which % shape.heads, (index % shape.blocks) * ROWS);
}

fn hold_a(at: Place, thread: u32) {
  let first = at.batch * shape.rowsABatch + at.head * shape.rowsAHead;
  for (var i = thread; i < ROWS * DIM; i += ROWS * TEAM) {
    heldA[i] = rowsA[first + min(at.row0 + i / DIM, shape.rows - 1u) * shape.rowsAToken + i % DIM];
  }
}
fn hold_b(at: Place, thread: u32) {
  let first = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead;
  for (var i = thread; i < ROWS * VDIM; i += ROWS * TEAM) {
    heldB[i] = rowsB[first + min(at.row0 + i / VDIM, shape.rows - 1u) * shape.rowsBToken + i % VDIM];
  }
}

// scale · rowA · colA + bias, and NEVER where the column is past the end or causally hidden.
fn score(at: Place, r: u32, col: u32) -> f32 {
  let row = min(at.row0 + r, shape.rows - 1u);
  let query = select(row, col, ROWS_ARE_KEYS);
  let key = select(col, row, ROWS_ARE_KEYS);
  if (col >= shape.cols || (shape.causal != 0u && key > query)) { return NEVER; }
  let other = at.batch * shape.colsABatch + at.head * shape.colsAHead + col * shape.colsAToken;
  var sum = 0.0;
  for (var k = 0u; k < DIM; k++) { sum += heldA[r * DIM + k] * colsA[other + k]; }
  sum *= shape.scale;
  if (HAS_BIAS) {
    sum += bias[at.batch * shape.biasBatch + at.head * shape.biasHead + query * shape.biasQuery + key * shape.biasKey];
  }
  return sum;
}

fn dot_b(at: Place, r: u32, col: u32) -> f32 {
  let other = at.batch * shape.colsBBatch + at.head * shape.colsBHead + col * shape.colsBToken;
  var sum = 0.0;
  for (var k = 0u; k < VDIM; k++) { sum += heldB[r * VDIM + k] * colsB[other + k]; }
  return sum;
}

// The first and the last column that these rows can see.
fn first_col(at: Place) -> u32 {
  return select(0u, at.row0 - at.row0 % COLS, ROWS_ARE_KEYS && shape.causal != 0u);
}
fn end_col(at: Place) -> u32 {
  return select(shape.cols, min(shape.cols, at.row0 + ROWS), !ROWS_ARE_KEYS && shape.causal != 0u);
}

@compute @workgroup_size(ROWS * TEAM)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= shape.groups) { return; }
  let at = place(index);
  let r = thread / TEAM;
  let member = thread % TEAM;
  let vFirst = at.batch * shape.colsBBatch + at.head * shape.colsBHead;
  hold_a(at, thread);
  workgroupBarrier();

  var top = NEVER;     // running maximum
  var total = 0.0;     // running sum of exp(score − top)
  var out: array<f32, VDIMS>;
  let end = end_col(at);
  for (var col0 = 0u; col0 < end; col0 += COLS) {
    for (var c = member; c < COLS; c += TEAM) { weights[r * COLS + c] = score(at, r, col0 + c); }
    workgroupBarrier();
    var highest = top;
    for (var c = 0u; c < COLS; c++) { highest = max(highest, weights[r * COLS + c]); }
    workgroupBarrier();
    for (var c = member; c < COLS; c += TEAM) {
      let s = weights[r * COLS + c];
      weights[r * COLS + c] = select(0.0, exp(s - highest), s > NEVER);
    }
    workgroupBarrier();
    let shrink = exp(top - highest);
    top = highest;
    total *= shrink;
    for (var j = 0u; j < VDIMS; j++) { out[j] *= shrink; }
    let held = min(COLS, end - col0);
    for (var c = 0u; c < held; c++) {
      let weight = weights[r * COLS + c];
      let vAt = vFirst + (col0 + c) * shape.colsBToken;
      total += weight;
      for (var j = 0u; j < VDIMS; j++) { out[j] += weight * colsB[vAt + min(member + j * TEAM, VDIM - 1u)]; }
    }
    workgroupBarrier();
  }

  let row = at.row0 + r;
  if (row < shape.rows) {
    let first = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead + row * shape.rowsBToken;
    if (member == 0u) { logSumExp[(at.batch * shape.heads + at.head) * shape.rows + row] = top + log(total); }
    for (var j = 0u; j < VDIMS; j++) {
      if (member + j * TEAM < VDIM) { outB[first + member + j * TEAM] = out[j] / total; }
    }
  }
}

@compute @workgroup_size(ROWS * TEAM)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= shape.groups) { return; }
  let at = place(index);
  let r = thread / TEAM;
  let member = thread % TEAM;
  let aFirst = at.batch * shape.colsABatch + at.head * shape.colsAHead;
  let bFirst = at.batch * shape.colsBBatch + at.head * shape.colsBHead;
  let queries = select(shape.rows, shape.cols, ROWS_ARE_KEYS);
  let statsFirst = (at.batch * shape.heads + at.head) * queries;
  let deltas = (shape.groups / shape.blocks) * queries;
  hold_a(at, thread);
  hold_b(at, thread);
  workgroupBarrier();

  var sumA: array<f32, DIMS>;
  var sumB: array<f32, VDIMS>;
  let end = end_col(at);
  for (var col0 = first_col(at); col0 < end; col0 += COLS) {
    for (var c = member; c < COLS; c += TEAM) {
      let s = score(at, r, col0 + c);
      var p = 0.0;
      var ds = 0.0;
      if (s > NEVER) {
        let query = statsFirst + select(min(at.row0 + r, shape.rows - 1u), col0 + c, ROWS_ARE_KEYS);
        p = exp(s - stats[query]);
        ds = p * (dot_b(at, r, col0 + c) - stats[deltas + query]);
      }
      weights[r * COLS + c] = p;
      gradients[r * COLS + c] = ds;
    }
    workgroupBarrier();
    let held = min(COLS, end - col0);
    for (var c = 0u; c < held; c++) {
      let ds = gradients[r * COLS + c];
      let aAt = aFirst + (col0 + c) * shape.colsAToken;
      for (var j = 0u; j < DIMS; j++) { sumA[j] += ds * colsA[aAt + min(member + j * TEAM, DIM - 1u)]; }
      if (ROWS_ARE_KEYS) {
        let p = weights[r * COLS + c];
        let bAt = bFirst + (col0 + c) * shape.colsBToken;
        for (var j = 0u; j < VDIMS; j++) { sumB[j] += p * colsB[bAt + min(member + j * TEAM, VDIM - 1u)]; }
      }
    }
    workgroupBarrier();
  }

  let row = at.row0 + r;
  if (row < shape.rows) {
    let outAFirst = at.batch * shape.rowsABatch + at.head * shape.rowsAHead + row * shape.rowsAToken;
    let outBFirst = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead + row * shape.rowsBToken;
    for (var j = 0u; j < DIMS; j++) {
      if (member + j * TEAM < DIM) { outA[outAFirst + member + j * TEAM] = sumA[j] * shape.scale; }
    }
    if (ROWS_ARE_KEYS) {
      for (var j = 0u; j < VDIMS; j++) {
        if (member + j * TEAM < VDIM) { outB[outBFirst + member + j * TEAM] = sumB[j]; }
      }
    }
  }
}
