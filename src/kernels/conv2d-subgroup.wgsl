// Convolution as a matrix product that gathers its left side; see conv2d.wgsl for the sum.
// One subgroup makes a tile of ROWS pixels × LANES·COLS channels. Each lane loads one activation per pixel, which
// subgroupShuffle hands round, and COLS weights: few loads for many products, and no workgroup memory.
enable subgroups;
const LANES = 8u;
const ROWS = 16u;
const COLS = 8u;
const HELD = (ROWS + LANES - 1u) / LANES; // pixels whose position one lane keeps
const TEMB = false;
const RESIDUAL = false;
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

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let row0 = (group.x + group.z * groups.x) * ROWS;
  let col0 = group.y * LANES * COLS + lane;
  if (row0 >= s.rows) { return; }
  var weightAt: array<u32, COLS>;
  for (var j = 0u; j < COLS; j++) { weightAt[j] = s.weightBase + min(col0 + j * LANES, s.cols - 1u) * s.weightCol; }

  var image: array<u32, HELD>; // its first line in x
  var top: array<i32, HELD>;   // the source of tap 0
  var left: array<i32, HELD>;
  for (var h = 0u; h < HELD; h++) {
    let q = min(row0 + h * LANES + lane, s.rows - 1u);
    let line = q / s.width;
    image[h] = line / s.height * s.inHeight;
    top[h] = i32(line % s.height) * s.stride + s.originY;
    left[h] = i32(q % s.width) * s.stride + s.originX;
  }

  var sum: array<array<f32, COLS>, ROWS>;
  for (var ky = 0u; ky < s.tapsY; ky++) {
    for (var kx = 0u; kx < s.tapsX; kx++) {
      var source: array<i32, HELD>; // −1 where the tap falls on the padding
      for (var h = 0u; h < HELD; h++) {
        let iy = u32(top[h] + i32(ky) * s.dilationY);
        let ix = u32(left[h] + i32(kx) * s.dilationX);
        let at = i32(((image[h] + iy) * s.inWidth + ix) * s.inChannels);
        source[h] = select(-1, at, iy < s.inHeight && ix < s.inWidth);
      }
      let tap = ky * s.weightTapY + kx * s.weightTapX;
      for (var c0 = 0u; c0 < s.inChannels; c0 += LANES) {
        let c = min(c0 + lane, s.inChannels - 1u);
        var a: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
          let at = subgroupShuffle(source[r / LANES], r % LANES);
          a[r] = select(0.0, x[u32(max(at, 0)) + c], at >= 0);
        }
        let depth = min(LANES, s.inChannels - c0);
        for (var k = 0u; k < depth; k++) {
          let weight = tap + (c0 + k) * s.weightChannel;
          var b: array<f32, COLS>;
          for (var j = 0u; j < COLS; j++) { b[j] = w[weightAt[j] + weight]; }
          for (var r = 0u; r < ROWS; r++) {
            let ar = subgroupShuffle(a[r], k);
            for (var j = 0u; j < COLS; j++) { sum[r][j] += ar * b[j]; }
          }
        }
      }
    }
  }

  if (s.biased == 1u) {
    for (var j = 0u; j < COLS; j++) {
      let b = bias[min(col0 + j * LANES, s.cols - 1u)];
      for (var r = 0u; r < ROWS; r++) { sum[r][j] += b; }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    let q = row0 + r;
    if (q < s.rows) {
      let line = q / s.width;
      let b = line / s.height;
      let outLine = b * s.outHeight + line % s.height * s.outStep + s.outY;
      let pixel = outLine * s.outWidth + q % s.width * s.outStep + s.outX;
      for (var j = 0u; j < COLS; j++) {
        let n = col0 + j * LANES;
        if (n < s.cols) {
          var v = sum[r][j];
          if (TEMB) { v += temb[b * s.cols + n]; }
          if (RESIDUAL) { v += residual[pixel * s.cols + n]; }
          y[pixel * s.cols + n] = v;
        }
      }
    }
  }
}
