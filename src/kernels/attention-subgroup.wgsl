// Attention without stored scores, for adapters whose lanes are SIMD lanes (see matmul-subgroup.wgsl).
//
// One subgroup holds ROWS rows of one head and passes over all columns, COLS·LANES at a time. Forward and in the gradient
// of the queries, rows are queries and columns keys; in the gradient of keys and values it is the other way round:
//
//              rowsA   colsA   rowsB   colsB   outA   outB
//   forward    q       k       (o)     v              o        o  = softmax(q·kᵀ·scale + bias)·v
//   queries    q       k       dy      v       dq              dq = scale · dS·k      dS = P ∘ (dy·vᵀ − Δ)
//   keys       k       q       v       dy      dk     dv       dk = scale · dSᵀ·q     dv = Pᵀ·dy
//
// The inner dimension is `dim` for A and `vdim` for B. stats: [2, batch, heads, queries]: logsumexp and Δ = Σ dy ∘ o.
enable subgroups;

const ROWS = 16u;
const COLS = 4u;
const LANES = 8u;
const DIMS = 4u;     // ⌈dim / LANES⌉
const VDIMS = 4u;    // ⌈vdim / LANES⌉
const ROWS_ARE_KEYS = false;
const HAS_BIAS = false;
const NEVER = -1e30;

struct Shape {
  rows: u32, cols: u32, dim: u32, vdim: u32, heads: u32, blocks: u32, groups: u32, lanes: u32, causal: u32, scale: f32,
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

alias Block = array<array<f32, COLS>, ROWS>;

// Where this subgroup works.
struct Place { batch: u32, head: u32, row0: u32 }

fn place(index: u32) -> Place {
  let which = index / shape.blocks;
  return Place(which / shape.heads, which % shape.heads, (index % shape.blocks) * ROWS);
}

// [ROWS, COLS·LANES] dot products of rowsA and colsA; lane l holds columns col0 + l, col0 + l + LANES, …
fn dots_a(at: Place, lane: u32, col0: u32) -> Block {
  let first = at.batch * shape.rowsABatch + at.head * shape.rowsAHead;
  let colFirst = at.batch * shape.colsABatch + at.head * shape.colsAHead;
  let rowToken = shape.rowsAToken;
  let colToken = shape.colsAToken;
  let lastRow = shape.rows - 1u;
  let lastCol = shape.cols - 1u;
  let lanes = shape.lanes;
  let depth = shape.dim;
  var colAt: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) { colAt[c] = colFirst + min(col0 + lane + c * LANES, lastCol) * colToken; }
  var block: Block;
  for (var k = 0u; k < depth; k += LANES) {
    let mine = min(k + lane, depth - 1u);
    let live = k + lane < depth;
    var av: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { av[r] = select(0.0, rowsA[first + min(at.row0 + r, lastRow) * rowToken + mine], live); }
    for (var i = 0u; i < lanes; i++) {
      let bk = min(k + i, depth - 1u);
      var bv: array<f32, COLS>;
      for (var c = 0u; c < COLS; c++) { bv[c] = colsA[colAt[c] + bk]; }
      for (var r = 0u; r < ROWS; r++) {
        let ar = subgroupShuffle(av[r], i);
        for (var c = 0u; c < COLS; c++) { block[r][c] += ar * bv[c]; }
      }
    }
  }
  return block;
}

fn dots_b(at: Place, lane: u32, col0: u32) -> Block {
  let first = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead;
  let colFirst = at.batch * shape.colsBBatch + at.head * shape.colsBHead;
  let rowToken = shape.rowsBToken;
  let colToken = shape.colsBToken;
  let lastRow = shape.rows - 1u;
  let lastCol = shape.cols - 1u;
  let lanes = shape.lanes;
  let depth = shape.vdim;
  var colAt: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) { colAt[c] = colFirst + min(col0 + lane + c * LANES, lastCol) * colToken; }
  var block: Block;
  for (var k = 0u; k < depth; k += LANES) {
    let mine = min(k + lane, depth - 1u);
    let live = k + lane < depth;
    var av: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { av[r] = select(0.0, rowsB[first + min(at.row0 + r, lastRow) * rowToken + mine], live); }
    for (var i = 0u; i < lanes; i++) {
      let bk = min(k + i, depth - 1u);
      var bv: array<f32, COLS>;
      for (var c = 0u; c < COLS; c++) { bv[c] = colsB[colAt[c] + bk]; }
      for (var r = 0u; r < ROWS; r++) {
        let ar = subgroupShuffle(av[r], i);
        for (var c = 0u; c < COLS; c++) { block[r][c] += ar * bv[c]; }
      }
    }
  }
  return block;
}

// Scores: scale · dots + bias, and NEVER where the column is past the end or causally hidden.
fn scores(at: Place, lane: u32, col0: u32) -> Block {
  var block = dots_a(at, lane, col0);
  let scale = shape.scale;
  let cols = shape.cols;
  let causal = shape.causal != 0u;
  for (var r = 0u; r < ROWS; r++) {
    let row = min(at.row0 + r, shape.rows - 1u);
    for (var c = 0u; c < COLS; c++) {
      let col = col0 + lane + c * LANES;
      let query = select(row, col, ROWS_ARE_KEYS);
      let key = select(col, row, ROWS_ARE_KEYS);
      var score = block[r][c] * scale;
      if (HAS_BIAS) {
        let q = min(query, select(shape.rows, cols, ROWS_ARE_KEYS) - 1u);
        let k = min(key, select(cols, shape.rows, ROWS_ARE_KEYS) - 1u);
        score += bias[at.batch * shape.biasBatch + at.head * shape.biasHead + q * shape.biasQuery + k * shape.biasKey];
      }
      block[r][c] = select(NEVER, score, col < cols && !(causal && key > query));
    }
  }
  return block;
}

// The first and the last column that these rows can see.
fn first_col(at: Place) -> u32 {
  return select(0u, at.row0 - at.row0 % (COLS * LANES), ROWS_ARE_KEYS && shape.causal != 0u);
}
fn end_col(at: Place) -> u32 {
  return select(shape.cols, min(shape.cols, at.row0 + ROWS), !ROWS_ARE_KEYS && shape.causal != 0u);
}

// block[..][c] by selection: an array that is indexed by a variable would have to live in memory.
fn slice(block: Block, c: u32) -> array<f32, ROWS> {
  var column: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    column[r] = block[r][0];
    for (var s = 1u; s < COLS; s++) { column[r] = select(column[r], block[r][s], s == c); }
  }
  return column;
}

// Over all lanes. Written out: a loop inside a loop over rows would keep drivers from unrolling the latter.
fn lane_sum(mine: f32) -> f32 {
  var sum = mine;
  if (LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
  if (LANES > 2u) { sum += subgroupShuffleXor(sum, 2u); }
  sum += subgroupShuffleXor(sum, 1u);
  return sum;
}
fn lane_max(mine: f32) -> f32 {
  var maximum = mine;
  if (LANES > 4u) { maximum = max(maximum, subgroupShuffleXor(maximum, 4u)); }
  if (LANES > 2u) { maximum = max(maximum, subgroupShuffleXor(maximum, 2u)); }
  maximum = max(maximum, subgroupShuffleXor(maximum, 1u));
  return maximum;
}

@compute @workgroup_size(LANES)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= shape.groups) { return; }
  let at = place(index);
  let vFirst = at.batch * shape.colsBBatch + at.head * shape.colsBHead + lane;
  let vToken = shape.colsBToken;
  let lanes = shape.lanes;
  let vdim = shape.vdim;
  let lastCol = shape.cols - 1u;
  var top: array<f32, ROWS>;      // running maximum
  var total: array<f32, ROWS>;    // running sum of exp(score − top), per lane
  var out: array<array<f32, VDIMS>, ROWS>;
  for (var r = 0u; r < ROWS; r++) { top[r] = NEVER; }

  let end = end_col(at);
  for (var col0 = 0u; col0 < end; col0 += COLS * LANES) {
    var p = scores(at, lane, col0);
    for (var r = 0u; r < ROWS; r++) {
      var highest = top[r];
      for (var c = 0u; c < COLS; c++) { highest = max(highest, p[r][c]); }
      highest = lane_max(highest);
      let shrink = exp(top[r] - highest);
      top[r] = highest;
      total[r] *= shrink;
      for (var j = 0u; j < VDIMS; j++) { out[r][j] *= shrink; }
      for (var c = 0u; c < COLS; c++) {
        p[r][c] = select(exp(p[r][c] - highest), 0.0, p[r][c] <= NEVER);   // NaN is not hidden
        total[r] += p[r][c];
      }
    }
    for (var c = 0u; c < COLS; c++) {
      let weights = slice(p, c);
      for (var i = 0u; i < lanes; i++) {
        let vAt = vFirst + min(col0 + c * LANES + i, lastCol) * vToken;
        var v: array<f32, VDIMS>;
        for (var j = 0u; j < VDIMS; j++) { v[j] = colsB[min(vAt + j * LANES, vAt - lane + vdim - 1u)]; }
        for (var r = 0u; r < ROWS; r++) {
          let weight = subgroupShuffle(weights[r], i);
          for (var j = 0u; j < VDIMS; j++) { out[r][j] += weight * v[j]; }
        }
      }
    }
  }

  let oFirst = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead + lane;
  let oToken = shape.rowsBToken;
  let rows = shape.rows;
  let statsFirst = (at.batch * shape.heads + at.head) * rows;
  for (var r = 0u; r < ROWS; r++) {
    let sum = lane_sum(total[r]);
    let row = at.row0 + r;
    if (row < rows) {
      if (lane == 0u) { logSumExp[statsFirst + row] = top[r] + log(sum); }
      for (var j = 0u; j < VDIMS; j++) {
        if (lane + j * LANES < vdim) { outB[oFirst + row * oToken + j * LANES] = out[r][j] / sum; }
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= shape.groups) { return; }
  let at = place(index);
  let aFirst = at.batch * shape.colsABatch + at.head * shape.colsAHead + lane;
  let bFirst = at.batch * shape.colsBBatch + at.head * shape.colsBHead + lane;
  let aToken = shape.colsAToken;
  let bToken = shape.colsBToken;
  let lanes = shape.lanes;
  let dim = shape.dim;
  let vdim = shape.vdim;
  let rows = shape.rows;
  let cols = shape.cols;
  let queries = select(rows, cols, ROWS_ARE_KEYS);
  let statsFirst = (at.batch * shape.heads + at.head) * queries;
  let deltas = (shape.groups / shape.blocks) * queries;
  var sumA: array<array<f32, DIMS>, ROWS>;
  var sumB: array<array<f32, VDIMS>, ROWS>;

  let end = end_col(at);
  for (var col0 = first_col(at); col0 < end; col0 += COLS * LANES) {
    var p = scores(at, lane, col0);
    var ds = dots_b(at, lane, col0);
    if (ROWS_ARE_KEYS) {
      for (var c = 0u; c < COLS; c++) {
        let query = statsFirst + min(col0 + lane + c * LANES, cols - 1u);
        let top = stats[query];
        let delta = stats[deltas + query];
        for (var r = 0u; r < ROWS; r++) {
          p[r][c] = select(exp(p[r][c] - top), 0.0, p[r][c] <= NEVER);
          ds[r][c] = p[r][c] * (ds[r][c] - delta);
        }
      }
    } else {
      for (var r = 0u; r < ROWS; r++) {
        let query = statsFirst + min(at.row0 + r, rows - 1u);
        let top = stats[query];
        let delta = stats[deltas + query];
        for (var c = 0u; c < COLS; c++) {
          p[r][c] = select(exp(p[r][c] - top), 0.0, p[r][c] <= NEVER);
          ds[r][c] = p[r][c] * (ds[r][c] - delta);
        }
      }
    }
    for (var c = 0u; c < COLS; c++) {
      let weightsA = slice(ds, c);
      let weightsB = slice(p, c);
      for (var i = 0u; i < lanes; i++) {
        let col = min(col0 + c * LANES + i, cols - 1u);
        let aAt = aFirst + col * aToken;
        var av: array<f32, DIMS>;
        for (var j = 0u; j < DIMS; j++) { av[j] = colsA[min(aAt + j * LANES, aAt - lane + dim - 1u)]; }
        for (var r = 0u; r < ROWS; r++) {
          let weight = subgroupShuffle(weightsA[r], i);
          for (var j = 0u; j < DIMS; j++) { sumA[r][j] += weight * av[j]; }
        }
        if (ROWS_ARE_KEYS) {
          let bAt = bFirst + col * bToken;
          var bv: array<f32, VDIMS>;
          for (var j = 0u; j < VDIMS; j++) { bv[j] = colsB[min(bAt + j * LANES, bAt - lane + vdim - 1u)]; }
          for (var r = 0u; r < ROWS; r++) {
            let weight = subgroupShuffle(weightsB[r], i);
            for (var j = 0u; j < VDIMS; j++) { sumB[r][j] += weight * bv[j]; }
          }
        }
      }
    }
  }

  let outAFirst = at.batch * shape.rowsABatch + at.head * shape.rowsAHead + lane;
  let outBFirst = at.batch * shape.rowsBBatch + at.head * shape.rowsBHead + lane;
  let outAToken = shape.rowsAToken;
  let outBToken = shape.rowsBToken;
  let scale = shape.scale;
  for (var r = 0u; r < ROWS; r++) {
    let row = at.row0 + r;
    if (row < rows) {
      for (var j = 0u; j < DIMS; j++) {
        if (lane + j * LANES < dim) { outA[outAFirst + row * outAToken + j * LANES] = sumA[r][j] * scale; }
      }
      if (ROWS_ARE_KEYS) {
        for (var j = 0u; j < VDIMS; j++) {
          if (lane + j * LANES < vdim) { outB[outBFirst + row * outBToken + j * LANES] = sumB[r][j]; }
        }
      }
    }
  }
}
