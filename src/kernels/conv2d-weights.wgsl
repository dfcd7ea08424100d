// dw[n, tap, c] = Σ_q dy[q, n] · x[q · stride + tap · dilation + origin, c]: one thread per weight and chunk of pixels.
const THREADS = 64u;
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

@compute @workgroup_size(THREADS)
fn weights(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  let size = s.cols * s.tapsY * s.tapsX * s.depth;
  if (i >= size * s.parts) { return; }
  let at = i % size;
  let c = at % s.depth;
  let kx = at / s.depth % s.tapsX;
  let ky = at / s.depth / s.tapsX % s.tapsY;
  let n = at / s.depth / s.tapsX / s.tapsY;
  let channel = n / s.groupCols * s.depth + c;
  let first = i / size * s.chunk;
  var sum = 0.0;
  for (var q = first; q < min(first + s.chunk, s.pixels); q++) {
    let line = q / s.width;
    let iy = u32(i32(line % s.height) * s.stride + i32(ky) * s.dilation + s.originY);
    let ix = u32(i32(q % s.width) * s.stride + i32(kx) * s.dilation + s.originX);
    if (iy < s.inHeight && ix < s.inWidth) {
      sum += dy[q * s.cols + n] * x[((line / s.height * s.inHeight + iy) * s.inWidth + ix) * s.inChannels + channel];
    }
  }
  dw[i] = sum;
}
