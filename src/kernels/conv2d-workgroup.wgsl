// Convolution as a matrix product that gathers its left side, for GPUs; see conv2d.wgsl for the sum.
// 256 threads make a tile of 64 pixels × 64 channels, 4 × 4 each, from slices of 16 that pass through workgroup memory.
const TEMB = false;
const RESIDUAL = false;
const SLICE = 16u;
const PITCH = 65u; // 64 and one more, so that neighbours in a slice fall into different banks
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

var<workgroup> left: array<f32, SLICE * PITCH>;
var<workgroup> right: array<f32, SLICE * PITCH>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let row0 = (group.x + group.z * groups.x) * 64u;
  let col0 = group.y * 64u;
  let size = s.tapsY * s.tapsX * s.inChannels;
  let tx = thread % 16u;
  let ty = thread / 16u;

  var image: array<u32, 4>; // of the four pixels that this thread loads: their first line in x,
  var origin: array<vec2i, 4>; // and the source of tap 0
  for (var i = 0u; i < 4u; i++) {
    let q = min(row0 + ty + i * 16u, s.rows - 1u);
    let line = q / s.width;
    image[i] = line / s.height * s.inHeight;
    origin[i] = vec2i(i32(q % s.width), i32(line % s.height)) * s.stride + vec2i(s.originX, s.originY);
  }

  var sum: array<array<f32, 4>, 4>;
  for (var k0 = 0u; k0 < size; k0 += SLICE) {
    let k = k0 + tx;
    let c = k % s.inChannels;
    let tap = vec2u(k / s.inChannels % s.tapsX, k / s.inChannels / s.tapsX);
    let offset = vec2i(tap) * vec2i(s.dilationX, s.dilationY);
    for (var i = 0u; i < 4u; i++) {
      let at = vec2u(origin[i] + offset);
      var v = 0.0;
      if (k < size && at.x < s.inWidth && at.y < s.inHeight) {
        v = x[((image[i] + at.y) * s.inWidth + at.x) * s.inChannels + c];
      }
      left[tx * PITCH + ty + i * 16u] = v;
    }
    // Neighbouring threads take neighbouring weights: along the sum, or along the columns where those are adjacent.
    for (var i = 0u; i < 4u; i++) {
      let along = s.weightCol == 1u;
      let slot = select(tx, thread / 64u + i * 4u, along);
      let col = select(ty + i * 16u, thread % 64u, along);
      var v = 0.0;
      if (k0 + slot < size && col0 + col < s.cols) { v = w[(col0 + col) * s.weightCol + weight_at(k0 + slot)]; }
      right[slot * PITCH + col] = v;
    }
    workgroupBarrier();
    for (var slot = 0u; slot < SLICE; slot++) {
      var b: array<f32, 4>;
      for (var j = 0u; j < 4u; j++) { b[j] = right[slot * PITCH + tx + j * 16u]; }
      for (var i = 0u; i < 4u; i++) {
        let a = left[slot * PITCH + ty + i * 16u];
        for (var j = 0u; j < 4u; j++) { sum[i][j] += a * b[j]; }
      }
    }
    workgroupBarrier();
  }

  for (var i = 0u; i < 4u; i++) {
    let q = row0 + ty + i * 16u;
    let line = q / s.width;
    let b = line / s.height;
    let outLine = b * s.outHeight + line % s.height * s.outStep + s.outY;
    let pixel = outLine * s.outWidth + q % s.width * s.outStep + s.outX;
    for (var j = 0u; j < 4u; j++) {
      let n = col0 + tx + j * 16u;
      if (q < s.rows && n < s.cols) {
        var v = sum[i][j];
        if (s.biased == 1u) { v += bias[n]; }
        if (TEMB) { v += temb[b * s.cols + n]; }
        if (RESIDUAL) { v += residual[pixel * s.cols + n]; }
        y[pixel * s.cols + n] = v;
      }
    }
  }
}

// The k-th weight of a column: k runs over taps, then channels.
fn weight_at(k: u32) -> u32 {
  let tap = k / s.inChannels;
  return s.weightBase + tap / s.tapsX * s.weightTapY + tap % s.tapsX * s.weightTapX + k % s.inChannels * s.weightChannel;
}
