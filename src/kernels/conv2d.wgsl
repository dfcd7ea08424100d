// Convolution that runs everywhere: one thread per output element. Also what all convolutions share: sums over pixels.
//     y[q, n] = Σ_tap Σ_c x[q · stride + tap · dilation + origin, c] · w[n, tap, c]
//               (+ bias[n] + temb[image, n] + residual[q, n])
// The gradient of x is the same sum over the taps that meet a pixel, with other strides for w: see conv2d-launch.ts.
const TEMB = false;
const RESIDUAL = false;
const THREADS = 64u;
struct Shape {
  rows: u32, height: u32, width: u32, cols: u32,  // made by this call: rows = B · height · width pixels of cols channels
  inHeight: u32, inWidth: u32, inChannels: u32,   // x: [B, inHeight, inWidth, inChannels]
  tapsY: u32, tapsX: u32, stride: i32,            // source of pixel q: q · stride + tap · dilation + origin
  dilationY: i32, dilationX: i32, originY: i32, originX: i32,
  outHeight: u32, outWidth: u32, outStep: u32, outY: u32, outX: u32, // pixel q is written at q · outStep + (outY, outX)
  weightBase: u32, weightCol: u32, weightTapY: u32, weightTapX: u32, weightChannel: u32, // where w begins; strides
  groupCols: u32, depth: u32, weightGroup: u32,   // channels of a group: made, summed over; stride of w
  biased: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;        // [cols]
@group(0) @binding(4) var<storage, read> temb: array<f32>;        // [B, cols]
@group(0) @binding(5) var<storage, read> residual: array<f32>;    // like y
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= s.rows * s.cols) { return; }
  let n = i % s.cols;
  let q = i / s.cols;
  let line = q / s.width;
  let image = line / s.height;
  let top = i32(line % s.height) * s.stride + s.originY;
  let left = i32(q % s.width) * s.stride + s.originX;
  let channel = n / s.groupCols * s.depth;
  let weight = s.weightBase + n / s.groupCols * s.weightGroup + n % s.groupCols * s.weightCol;
  var sum = 0.0;
  for (var ky = 0u; ky < s.tapsY; ky++) {
    let iy = u32(top + i32(ky) * s.dilationY);
    if (iy >= s.inHeight) { continue; }
    for (var kx = 0u; kx < s.tapsX; kx++) {
      let ix = u32(left + i32(kx) * s.dilationX);
      if (ix >= s.inWidth) { continue; }
      let source = ((image * s.inHeight + iy) * s.inWidth + ix) * s.inChannels + channel;
      let tap = weight + ky * s.weightTapY + kx * s.weightTapX;
      for (var c = 0u; c < s.depth; c++) { sum += x[source + c] * w[tap + c * s.weightChannel]; }
    }
  }
  let outLine = image * s.outHeight + line % s.height * s.outStep + s.outY;
  let pixel = outLine * s.outWidth + q % s.width * s.outStep + s.outX;
  if (s.biased == 1u) { sum += bias[n]; }
  if (TEMB) { sum += temb[image * s.cols + n]; }
  if (RESIDUAL) { sum += residual[pixel * s.cols + n]; }
  y[pixel * s.cols + n] = sum;
}
