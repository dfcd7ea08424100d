// y = A·B + bias + residual, the register tile of software adapters: every lane is a SIMD lane and every load costs the
// same, so a subgroup computes ROWS × (COLS·LANES) outputs, loads A one value per lane, and hands it round by shuffles.
// Shapes as in matmul.wgsl. One subgroup per tile; tiles overhanging the edge load clamped and do not store.
enable subgroups;

const ROWS = 16u;
const COLS = 8u;
const LANES = 8u;

struct Shape {
  M: u32, N: u32, K: u32, tilesM: u32, tiles: u32, splits: u32, chunk: u32, inner: u32, lanes: u32,
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

// Over all lanes. Written out: a loop inside a loop over rows would keep drivers from unrolling the latter.
fn lane_sum(mine: f32) -> f32 {
  var sum = mine;
  if (LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
  if (LANES > 2u) { sum += subgroupShuffleXor(sum, 2u); }
  sum += subgroupShuffleXor(sum, 1u);
  return sum;
}

@compute @workgroup_size(LANES)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = group.x + group.y * groups.x;
  if (tile >= shape.tiles) { return; }
  let batch = group.z / shape.splits;
  let kFirst = (group.z % shape.splits) * shape.chunk;
  let kEnd = min(kFirst + shape.chunk, shape.K);
  let aFirst = shape.aStart + (batch / shape.inner) * shape.aOuter + (batch % shape.inner) * shape.aInner;
  let bFirst = shape.bStart + (batch / shape.inner) * shape.bOuter + (batch % shape.inner) * shape.bInner;
  let M = shape.M;
  let N = shape.N;
  let row0 = (tile % shape.tilesM) * ROWS;   // down the rows first: the strip of B stays in the cache meanwhile
  let col0 = (tile / shape.tilesM) * LANES * COLS + lane;

  var aAt: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { aAt[r] = aFirst + min(row0 + r, M - 1u) * shape.aRow; }
  var bAt: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    let col = min(col0 + c * LANES, N - 1u);
    bAt[c] = bFirst + col / 64u * shape.bStrip + col % 64u * shape.bCol;
  }

  // A uniform costs a load each time it is named, so the loops use copies. That `lanes` is not a constant keeps its loop
  // rolled: unrolled, the code outgrows the instruction cache.
  let aCol = shape.aCol;
  let bRow = shape.bRow;
  let lanes = shape.lanes;
  var sums: array<array<f32, COLS>, ROWS>;
  var aSums: array<f32, ROWS>;
  for (var k = kFirst; k < kEnd; k += LANES) {
    let ak = min(k + lane, kEnd - 1u) * aCol;
    let live = k + lane < kEnd;
    var av: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      av[r] = select(0.0, a[aAt[r] + ak], live);
      aSums[r] += av[r];
    }
    for (var i = 0u; i < lanes; i++) {
      let bk = min(k + i, kEnd - 1u) * bRow;
      var bv: array<f32, COLS>;
      for (var c = 0u; c < COLS; c++) { bv[c] = b[bAt[c] + bk]; }
      for (var r = 0u; r < ROWS; r++) {
        let ar = subgroupShuffle(av[r], i);
        for (var c = 0u; c < COLS; c++) { sums[r][c] += ar * bv[c]; }
      }
    }
  }

  if (shape.hasBias != 0u) {
    for (var c = 0u; c < COLS; c++) {
      let value = bias[min(col0 + c * LANES, N - 1u)];
      for (var r = 0u; r < ROWS; r++) { sums[r][c] += value; }
    }
  }
  let yFirst = shape.yStart + (batch / shape.inner) * shape.yOuter + (batch % shape.inner) * shape.yInner
    + (group.z % shape.splits) * shape.ySplit;
  let yRow = shape.yRow;
  let hasResidual = shape.hasResidual != 0u;
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      let col = col0 + c * LANES;
      if (row0 + r < M && col < N) {
        let at = yFirst + (row0 + r) * yRow + col;
        var value = sums[r][c];
        if (hasResidual) { value += residual[at]; }
        y[at] = value;
      }
    }
  }
  if (shape.hasSums != 0u && tile < shape.tilesM) {
    for (var r = 0u; r < ROWS; r++) {
      let sum = lane_sum(aSums[r]);
      if (lane == 0u && row0 + r < M) { rowSums[group.z * M + row0 + r] = sum; }
    }
  }
}
