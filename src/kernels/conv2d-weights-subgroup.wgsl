// dw[n, tap, c] = Σ_q dy[q, n] · x[q · stride + tap · dilation + origin, c] as a matrix product over the pixels q.
// One subgroup makes ROWS channels c of one tap × LANES·COLS channels n: each lane loads ROWS activations of its pixel,
// which subgroupShuffle hands round, and COLS of dy.
enable subgroups;
const LANES = 8u;
const ROWS = 16u;
const COLS = 8u;
struct Weights {
  height: u32, width: u32, pixels: u32, cols: u32,   // dy: [B, height, width, cols], pixels = B · height · width
  inHeight: u32, inWidth: u32, inChannels: u32,      // x: [B, inHeight, inWidth, inChannels]
  tapsY: u32, tapsX: u32, stride: i32, dilation: i32, originY: i32, originX: i32,
  groupCols: u32, depth: u32,                        // channels of a group: of dy, of x
  parts: u32, chunk: u32,                            // pixels are summed in `parts` chunks, folded later in order
}
@group(0) @binding(0) var<uniform> s: Weights;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dw: array<f32>;    // [parts, cols, tapsY, tapsX, depth]

@compute @workgroup_size(LANES)
fn weights(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tilesC = (s.depth + ROWS - 1u) / ROWS;
  let tap = group.x / tilesC;
  let c0 = group.x % tilesC * ROWS;
  let col0 = group.y * LANES * COLS + lane;
  let first = group.z * s.chunk;
  let end = min(first + s.chunk, s.pixels);

  // The lane's pixel, as digits of a clock that advances by LANES: no division in the loop.
  let area = s.height * s.width;
  let stepB = LANES / area;
  let stepY = LANES % area / s.width;
  let stepX = LANES % s.width;
  let q0 = first + lane;
  var b = q0 / area;
  var qy = q0 % area / s.width;
  var qx = q0 % s.width;
  let originY = i32(tap / s.tapsX) * s.dilation + s.originY;
  let originX = i32(tap % s.tapsX) * s.dilation + s.originX;

  var sum: array<array<f32, COLS>, ROWS>;
  for (var q = first; q < end; q += LANES) {
    let iy = u32(i32(qy) * s.stride + originY);
    let ix = u32(i32(qx) * s.stride + originX);
    let inside = iy < s.inHeight && ix < s.inWidth && q + lane < end;
    let source = select(0u, ((b * s.inHeight + iy) * s.inWidth + ix) * s.inChannels, inside);
    var a: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { a[r] = select(0.0, x[source + min(c0 + r, s.depth - 1u)], inside); }
    let n = min(LANES, end - q);
    for (var k = 0u; k < n; k++) {
      var d: array<f32, COLS>;
      for (var j = 0u; j < COLS; j++) { d[j] = dy[(q + k) * s.cols + min(col0 + j * LANES, s.cols - 1u)]; }
      for (var r = 0u; r < ROWS; r++) {
        let ar = subgroupShuffle(a[r], k);
        for (var j = 0u; j < COLS; j++) { sum[r][j] += ar * d[j]; }
      }
    }
    qx += stepX;
    qy += stepY;
    b += stepB;
    if (qx >= s.width) { qx -= s.width; qy++; }
    if (qy >= s.height) { qy -= s.height; b++; }
  }

  let taps = s.tapsY * s.tapsX;
  for (var j = 0u; j < COLS; j++) {
    let n = col0 + j * LANES;
    if (n < s.cols) {
      let at = ((group.z * s.cols + n) * taps + tap) * s.depth + c0;
      for (var r = 0u; r < ROWS; r++) {
        if (c0 + r < s.depth) { dw[at + r] = sum[r][j]; }
      }
    }
  }
}
