// dw[n, tap, c] = Σ_q dy[q, n] · x[q · stride + tap · dilation + origin, c] as a matrix product over the pixels q, for GPUs.
// 256 threads make a tile of 64 weights (tap, c) × 64 channels n, 4 × 4 each, from slices of 16 pixels.
const SLICE = 16u;
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

var<workgroup> left: array<f32, SLICE * 64u>;
var<workgroup> right: array<f32, SLICE * 64u>;
var<workgroup> lines: array<u32, SLICE>;  // first line of the pixel's image in x
var<workgroup> places: array<vec2i, SLICE>; // its position in x for tap 0

@compute @workgroup_size(256)
fn weights(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let rows = s.tapsY * s.tapsX * s.depth;
  let row0 = group.x * 64u;
  let col0 = group.y * 64u;
  let first = group.z * s.chunk;
  let end = min(first + s.chunk, s.pixels);
  let tx = thread % 16u;
  let ty = thread / 16u;
  let own = thread % 64u;         // the row and the column that this thread loads
  let c = (row0 + own) % s.depth;
  let tap = (row0 + own) / s.depth;
  let offset = vec2i(i32(tap % s.tapsX), i32(tap / s.tapsX)) * s.dilation;

  var sum: array<array<f32, 4>, 4>;
  for (var q0 = first; q0 < end; q0 += SLICE) {
    if (thread < SLICE) {
      let q = q0 + thread;
      let line = q / s.width;
      lines[thread] = line / s.height * s.inHeight;
      places[thread] = vec2i(i32(q % s.width), i32(line % s.height)) * s.stride + vec2i(s.originX, s.originY);
    }
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
      let slot = thread / 64u + i * 4u;
      let q = q0 + slot;
      let at = vec2u(places[slot] + offset);
      var a = 0.0;
      var d = 0.0;
      if (q < end) {
        if (row0 + own < rows && at.x < s.inWidth && at.y < s.inHeight) {
          a = x[((lines[slot] + at.y) * s.inWidth + at.x) * s.inChannels + c];
        }
        if (col0 + own < s.cols) { d = dy[q * s.cols + col0 + own]; }
      }
      left[slot * 64u + own] = a;
      right[slot * 64u + own] = d;
    }
    workgroupBarrier();
    for (var slot = 0u; slot < SLICE; slot++) {
      var a: array<f32, 4>;
      for (var i = 0u; i < 4u; i++) { a[i] = left[slot * 64u + tx + i * 16u]; }
      for (var j = 0u; j < 4u; j++) {
        let d = right[slot * 64u + ty + j * 16u];
        for (var i = 0u; i < 4u; i++) { sum[i][j] += a[i] * d; }
      }
    }
  }

  for (var j = 0u; j < 4u; j++) {
    let n = col0 + ty + j * 16u;
    for (var i = 0u; i < 4u; i++) {
      let row = row0 + tx + i * 16u;
      if (n < s.cols && row < rows) { dw[(group.z * s.cols + n) * rows + row] = sum[i][j]; }
    }
  }
}
