// y = A·B with every size a constant and no edges: the fastest product that anyone has written down for lavapipe, and what
// the general kernels are held against. A subgroup computes 16 × 64 outputs: a lane loads one k of A's 16 rows, hands it
// round by shuffles, and holds 8 columns.   A, B, y: [1024, 1024]
enable subgroups;
const N = 1024u;
const ROWS = 16u;
const COLS = 8u;
const LANES = 8u;
struct Shape { lanes: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn bare_matmul(@builtin(workgroup_id) group: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let row = group.y * ROWS;
  let col = group.x * COLS * LANES + lane;
  let lanes = shape.lanes; // not a constant, so that the loop stays rolled and its code small
  var sums: array<array<f32, COLS>, ROWS>;
  for (var k = 0u; k < N; k += LANES) {
    var av: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { av[r] = a[(row + r) * N + k + lane]; }
    for (var i = 0u; i < lanes; i++) {
      var bv: array<f32, COLS>;
      for (var c = 0u; c < COLS; c++) { bv[c] = b[(k + i) * N + col + c * LANES]; }
      for (var r = 0u; r < ROWS; r++) {
        let ar = subgroupShuffle(av[r], i);
        for (var c = 0u; c < COLS; c++) { sums[r][c] += ar * bv[c]; }
      }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) { y[(row + r) * N + col + c * LANES] = sums[r][c]; }
  }
}
