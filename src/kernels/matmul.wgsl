// y = A·B + bias + residual, batched.   A: [batch, M, K]   B: [batch, K, N]   bias: [N]   residual, y: [batch, M, N]
// A and B lie as their strides say: transposed, broadcast or part of a larger array. The batch has two levels (outer,
// inner). With splits > 1, y is [batch, splits, M, N]: one partial sum per chunk of K, added up by sum_middle.

struct Shape {
  M: u32, N: u32, K: u32, tilesN: u32, tiles: u32, splits: u32, chunk: u32, inner: u32, lanes: u32,
  aRow: u32, aCol: u32, bRow: u32, bCol: u32,
  aStart: u32, aOuter: u32, aInner: u32, bStart: u32, bOuter: u32, bInner: u32, bStrip: u32,
  yStart: u32, yRow: u32, yOuter: u32, yInner: u32, ySplit: u32,
  hasBias: u32, hasResidual: u32, hasSums: u32,
}
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> rowSums: array<f32>;

fn a_first(z: u32) -> u32 {
  let batch = z / shape.splits;
  return shape.aStart + (batch / shape.inner) * shape.aOuter + (batch % shape.inner) * shape.aInner;
}
fn b_first(z: u32) -> u32 {
  let batch = z / shape.splits;
  return shape.bStart + (batch / shape.inner) * shape.bOuter + (batch % shape.inner) * shape.bInner;
}
// Where a column of B begins: in strips of 64, which may lie anywhere.
fn b_column(col: u32) -> u32 { return col / 64u * shape.bStrip + col % 64u * shape.bCol; }
fn k_first(z: u32) -> u32 { return (z % shape.splits) * shape.chunk; }

fn store(z: u32, row: u32, col: u32, sum: f32) {
  if (row >= shape.M || col >= shape.N) { return; }
  let batch = z / shape.splits;
  let first = shape.yStart + (batch / shape.inner) * shape.yOuter + (batch % shape.inner) * shape.yInner + (z % shape.splits) * shape.ySplit;
  let at = first + row * shape.yRow + col;
  var value = sum;
  if (shape.hasBias != 0u) { value += bias[col]; }
  if (shape.hasResidual != 0u) { value += residual[at]; }
  y[at] = value;
}

// One thread per output, 8 × 8 outputs per workgroup.
@compute @workgroup_size(8, 8)
fn naive(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let tile = group.x + group.y * groups.x;
  let row = (tile / shape.tilesN) * 8u + local.y;
  let col = (tile % shape.tilesN) * 8u + local.x;
  if (row >= shape.M || col >= shape.N) { return; }
  let aAt = a_first(group.z) + row * shape.aRow;
  let bAt = b_first(group.z) + b_column(col);
  let first = k_first(group.z);
  let end = min(first + shape.chunk, shape.K);
  var sum = 0.0;
  for (var k = first; k < end; k++) { sum += a[aAt + k * shape.aCol] * b[bAt + k * shape.bRow]; }
  store(group.z, row, col, sum);
}

// Software adapters without subgroups: a thread holds 8 rows × 4 columns in named registers, 8 threads side by side.
@compute @workgroup_size(8)
fn register_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let tile = group.x + group.y * groups.x;
  if (tile >= shape.tiles) { return; }
  let row = (tile / shape.tilesN) * 8u;
  let col = (tile % shape.tilesN) * 32u + thread * 4u;
  let aCol = shape.aCol;
  let bRow = shape.bRow;
  let first = k_first(group.z);
  let end = min(first + shape.chunk, shape.K);
  let aAt = a_first(group.z) + first * aCol;
  let lastRow = shape.M - 1u;
  var a0 = aAt + min(row, lastRow) * shape.aRow;
  var a1 = aAt + min(row + 1u, lastRow) * shape.aRow;
  var a2 = aAt + min(row + 2u, lastRow) * shape.aRow;
  var a3 = aAt + min(row + 3u, lastRow) * shape.aRow;
  var a4 = aAt + min(row + 4u, lastRow) * shape.aRow;
  var a5 = aAt + min(row + 5u, lastRow) * shape.aRow;
  var a6 = aAt + min(row + 6u, lastRow) * shape.aRow;
  var a7 = aAt + min(row + 7u, lastRow) * shape.aRow;
  let columns = min(vec4u(0u, 1u, 2u, 3u) + col, vec4u(shape.N - 1u));
  var bAt = vec4u(b_first(group.z) + first * bRow) + columns / 64u * shape.bStrip + columns % 64u * shape.bCol;
  var y0 = vec4f();
  var y1 = vec4f();
  var y2 = vec4f();
  var y3 = vec4f();
  var y4 = vec4f();
  var y5 = vec4f();
  var y6 = vec4f();
  var y7 = vec4f();
  for (var k = first; k < end; k++) {
    let bv = vec4f(b[bAt.x], b[bAt.y], b[bAt.z], b[bAt.w]);
    y0 += a[a0] * bv;
    y1 += a[a1] * bv;
    y2 += a[a2] * bv;
    y3 += a[a3] * bv;
    y4 += a[a4] * bv;
    y5 += a[a5] * bv;
    y6 += a[a6] * bv;
    y7 += a[a7] * bv;
    a0 += aCol;
    a1 += aCol;
    a2 += aCol;
    a3 += aCol;
    a4 += aCol;
    a5 += aCol;
    a6 += aCol;
    a7 += aCol;
    bAt += bRow;
  }
  store4(group.z, row, col, y0);
  store4(group.z, row + 1u, col, y1);
  store4(group.z, row + 2u, col, y2);
  store4(group.z, row + 3u, col, y3);
  store4(group.z, row + 4u, col, y4);
  store4(group.z, row + 5u, col, y5);
  store4(group.z, row + 6u, col, y6);
  store4(group.z, row + 7u, col, y7);
}

fn store4(z: u32, row: u32, col: u32, sums: vec4f) {
  store(z, row, col, sums.x);
  store(z, row, col + 1u, sums.y);
  store(z, row, col + 2u, sums.z);
  store(z, row, col + 3u, sums.w);
}

// GPUs: 256 threads compute 64 × 64 outputs, 4 × 4 each, from 64 × 16 tiles of A and B staged in workgroup memory.
const TILE = 64u;
const DEPTH = 16u;
var<workgroup> aTile: array<f32, DEPTH * TILE>;   // [k][row]
var<workgroup> bTile: array<f32, DEPTH * TILE>;   // [k][col]

@compute @workgroup_size(256)
fn workgroup_tile(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let tile = group.x + group.y * groups.x;
  let row0 = (tile / shape.tilesN) * TILE;
  let col0 = (tile % shape.tilesN) * TILE;
  let aFirst = a_first(group.z);
  let bFirst = b_first(group.z);
  let first = k_first(group.z);
  let end = min(first + shape.chunk, shape.K);

  // Neighbouring threads load along the axis that lies densely in memory.
  let along = vec2u(thread % DEPTH, thread / DEPTH);          // (k, row), the next row 16 further
  let across = vec2u(thread / TILE, thread % TILE);           // (k, row), the next k 4 further
  let aDense = shape.aCol == 1u;
  let aPlace = select(across, along, aDense);
  let aStep = select(vec2u(4u, 0u), vec2u(0u, 16u), aDense);
  let bDense = shape.bRow == 1u;
  let bPlace = select(across, along, bDense);
  let bStep = select(vec2u(4u, 0u), vec2u(0u, 16u), bDense);

  let tx = thread % 16u;
  let ty = thread / 16u;
  var sums: array<vec4f, 4>;
  for (var k = first; k < end; k += DEPTH) {
    for (var i = 0u; i < 4u; i++) {
      let ap = aPlace + aStep * i;
      let aLive = k + ap.x < end && row0 + ap.y < shape.M;
      let aAt = aFirst + min(k + ap.x, end - 1u) * shape.aCol + min(row0 + ap.y, shape.M - 1u) * shape.aRow;
      aTile[ap.x * TILE + ap.y] = select(0.0, a[aAt], aLive);
      let bp = bPlace + bStep * i;
      let bLive = k + bp.x < end && col0 + bp.y < shape.N;
      let bAt = bFirst + min(k + bp.x, end - 1u) * shape.bRow + b_column(min(col0 + bp.y, shape.N - 1u));
      bTile[bp.x * TILE + bp.y] = select(0.0, b[bAt], bLive);
    }
    workgroupBarrier();
    for (var i = 0u; i < DEPTH; i++) {
      let at = i * TILE + tx * 4u;
      let bv = vec4f(bTile[at], bTile[at + 1u], bTile[at + 2u], bTile[at + 3u]);
      for (var r = 0u; r < 4u; r++) { sums[r] += aTile[i * TILE + ty * 4u + r] * bv; }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) { store4(group.z, row0 + ty * 4u + r, col0 + tx * 4u, sums[r]); }
}

// rowSums[z, m] = sum over k of A[m, k]: one thread per row.
@compute @workgroup_size(64)
fn row_sums(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= shape.M) { return; }
  let at = a_first(id.z) + id.x * shape.aRow;
  let first = k_first(id.z);
  let end = min(first + shape.chunk, shape.K);
  var sum = 0.0;
  for (var k = first; k < end; k++) { sum += a[at + k * shape.aCol]; }
  rowSums[id.z * shape.M + id.x] = sum;
}

// B in strips of 64 columns, each dense: y[n / 64, k, n % 64].
@compute @workgroup_size(64)
fn pack(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  let col = (tile % shape.tilesN) * 64u + thread;
  if (col >= shape.N) { return; }
  let first = b_first(group.z) + col * shape.bCol;
  let start = (tile / shape.tilesN) * 16u;
  let end = min(start + 16u, shape.K);
  let bRow = shape.bRow;
  let out = col / 64u * shape.K * 64u + thread;
  for (var k = start; k < end; k++) { y[out + k * 64u] = b[first + k * bRow]; }
}
