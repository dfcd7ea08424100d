// The ends of a 3 × 3 convolution by Winograd's F(2 × 2, 3 × 3); between them stand 16 matrix products, one for each k.
//
//     v[k] = (Bᵀ d B)[k]     u[k] = (G g Gᵀ)[k]     m[k] = v[k] · u[k] over the channels     y = Aᵀ m A
//
// d: 4 × 4 pixels of x, g: 3 × 3 taps, m: 4 × 4, y: 2 × 2 pixels. Tiles lie two pixels apart, so their d overlap.
const THREADS = 32u;
const RUN = 8u;          // tiles in a row that one thread makes of the columns it has loaded
const TEMB = false;
const RESIDUAL = false;
struct Shape {
  height: u32, width: u32, cols: u32,                   // of y; a band has some of its lines of tiles and of its channels
  inHeight: u32, inWidth: u32, inChannels: u32,         // x: [B, inHeight, inWidth, inChannels]
  originY: i32, originX: i32,                           // source of output pixel 0, tap 0
  weightBase: u32, weightCol: u32, weightTapY: u32, weightTapX: u32, weightChannel: u32, flip: u32,
  tilesY: u32, tilesX: u32, line0: u32, lines: u32, col0: u32, bandCols: u32, runs: u32,
  biased: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> vk: array<f32>;      // v: [16, tiles, inChannels]

fn index(group: vec3u, groups: vec3u, thread: u32) -> u32 { return (group.x + group.y * groups.x) * THREADS + thread; }

fn of_pixels(d: vec4f) -> vec4f { return vec4f(d.x - d.z, d.y + d.z, d.z - d.y, d.y - d.w); }

// One thread for each channel of RUN neighbouring tiles.
@compute @workgroup_size(THREADS)
fn input(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  let channels = s.inChannels;
  let block = id / channels;
  if (block >= s.lines * s.runs) { return; }
  let c = id - block * channels;
  let line = block / s.runs;
  let tile0 = (block - line * s.runs) * RUN;
  let image = (s.line0 + line) / s.tilesY;
  let top = i32((s.line0 + line) % s.tilesY * 2u) + s.originY;
  let height = s.inHeight;
  let width = s.inWidth;
  let rowSize = width * channels;
  // Lines of x above and below the image are read as its first, and then count as zero.
  let live = vec4<bool>(u32(top) < height, u32(top + 1) < height, u32(top + 2) < height, u32(top + 3) < height);
  let rows = select(vec4u(0u), vec4u(u32(top), u32(top + 1), u32(top + 2), u32(top + 3)), live);
  let at = (image * height + rows) * rowSize + c;
  let count = min(RUN, s.tilesX - tile0);
  let step = s.lines * s.tilesX * channels;
  var out = (line * s.tilesX + tile0) * channels + c;
  var column = i32(tile0 * 2u) + s.originX;
  var d0 = vec4f(0.0);
  var d1 = vec4f(0.0);
  for (var i = 0u; i <= count; i++) {
    let live2 = u32(column) < width;
    let live3 = u32(column + 1) < width;
    let i2 = at + select(0u, u32(column), live2) * channels;
    let i3 = at + select(0u, u32(column + 1), live3) * channels;
    let d2 = of_pixels(select(vec4f(0.0), vec4f(x[i2.x], x[i2.y], x[i2.z], x[i2.w]), live & vec4<bool>(live2)));
    let d3 = of_pixels(select(vec4f(0.0), vec4f(x[i3.x], x[i3.y], x[i3.z], x[i3.w]), live & vec4<bool>(live3)));
    if (i > 0u) {
      let a = d0 - d2;
      let b = d1 + d2;
      let e = d2 - d1;
      let f = d1 - d3;
      vk[out] = a.x;              vk[out + step] = b.x;       vk[out + 2u * step] = e.x;   vk[out + 3u * step] = f.x;
      vk[out + 4u * step] = a.y;  vk[out + 5u * step] = b.y;  vk[out + 6u * step] = e.y;   vk[out + 7u * step] = f.y;
      vk[out + 8u * step] = a.z;  vk[out + 9u * step] = b.z;  vk[out + 10u * step] = e.z;  vk[out + 11u * step] = f.z;
      vk[out + 12u * step] = a.w; vk[out + 13u * step] = b.w; vk[out + 14u * step] = e.w;  vk[out + 15u * step] = f.w;
      out += channels;
    }
    d0 = d2;
    d1 = d3;
    column += 2;
  }
}

@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> u: array<f32>;       // [16, strips of 64 columns, inChannels, 64]

fn of_taps(d: vec3f) -> vec4f { return vec4f(d.x, 0.5 * (d.x + d.y + d.z), 0.5 * (d.x - d.y + d.z), d.z); }

// One thread for each output channel and 16 input channels: their taps share cache lines.
@compute @workgroup_size(THREADS)
fn weights(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  let cols = s.bandCols;
  let block = id / cols;
  let channels = s.inChannels;
  if (block * 16u >= channels) { return; }
  let col = id - block * cols;
  let turn = s.flip == 1u;
  let tapY = select(s.weightTapY, 0u - s.weightTapY, turn);
  let tapX = select(s.weightTapX, 0u - s.weightTapX, turn);
  let first = s.weightBase + select(0u, 2u * (s.weightTapY + s.weightTapX), turn);
  let step = channels * ((cols + 63u) / 64u * 64u);
  let strip = col / 64u * channels * 64u + col % 64u;
  let end = min(block * 16u + 16u, channels);
  for (var c = block * 16u; c < end; c++) {
    let at = first + (s.col0 + col) * s.weightCol + c * s.weightChannel;
    let below = at + tapY;
    let last = below + tapY;
    let d0 = of_taps(vec3f(w[at], w[below], w[last]));
    let d1 = of_taps(vec3f(w[at + tapX], w[below + tapX], w[last + tapX]));
    let d2 = of_taps(vec3f(w[at + 2u * tapX], w[below + 2u * tapX], w[last + 2u * tapX]));
    let b = 0.5 * (d0 + d1 + d2);
    let e = 0.5 * (d0 - d1 + d2);
    let out = strip + c * 64u;
    u[out] = d0.x;              u[out + step] = b.x;       u[out + 2u * step] = e.x;   u[out + 3u * step] = d2.x;
    u[out + 4u * step] = d0.y;  u[out + 5u * step] = b.y;  u[out + 6u * step] = e.y;   u[out + 7u * step] = d2.y;
    u[out + 8u * step] = d0.z;  u[out + 9u * step] = b.z;  u[out + 10u * step] = e.z;  u[out + 11u * step] = d2.z;
    u[out + 12u * step] = d0.w; u[out + 13u * step] = b.w; u[out + 14u * step] = e.w;  u[out + 15u * step] = d2.w;
  }
}

@group(0) @binding(1) var<storage, read> m: array<f32>;             // [16, tiles, bandCols]
@group(0) @binding(2) var<storage, read> bias: array<f32>;          // [cols]
@group(0) @binding(3) var<storage, read> temb: array<f32>;          // [B, cols]
@group(0) @binding(4) var<storage, read> residual: array<f32>;      // like y
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

fn to_pixels(d: vec4f) -> vec2f { return vec2f(d.x + d.y + d.z, d.y - d.z - d.w); }

// One thread for each tile and channel.
@compute @workgroup_size(THREADS)
fn output(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  let bandCols = s.bandCols;
  let tile = id / bandCols;
  if (tile >= s.lines * s.tilesX) { return; }
  let step = s.lines * s.tilesX * bandCols;
  let d0 = to_pixels(vec4f(m[id], m[id + 4u * step], m[id + 8u * step], m[id + 12u * step]));
  let d1 = to_pixels(vec4f(m[id + step], m[id + 5u * step], m[id + 9u * step], m[id + 13u * step]));
  let d2 = to_pixels(vec4f(m[id + 2u * step], m[id + 6u * step], m[id + 10u * step], m[id + 14u * step]));
  let d3 = to_pixels(vec4f(m[id + 3u * step], m[id + 7u * step], m[id + 11u * step], m[id + 15u * step]));
  let cols = s.cols;
  let col = s.col0 + id - tile * bandCols;
  let line = tile / s.tilesX;
  let image = (s.line0 + line) / s.tilesY;
  let row = (s.line0 + line) % s.tilesY * 2u;
  let column = (tile - line * s.tilesX) * 2u;
  var extra = 0.0;
  if (s.biased == 1u) { extra = bias[col]; }
  if (TEMB) { extra += temb[image * cols + col]; }
  let left = d0 + d1 + d2 + extra;
  let right = d1 - d2 - d3 + extra;
  let pixel = ((image * s.height + row) * s.width + column) * cols + col;
  let below = pixel + s.width * cols;
  let hasRight = column + 1u < s.width;
  let hasBelow = row + 1u < s.height;
  put(pixel, left.x);
  if (hasRight) { put(pixel + cols, right.x); }
  if (hasBelow) { put(below, left.y); }
  if (hasRight && hasBelow) { put(below + cols, right.y); }
}

fn put(place: u32, value: f32) {
  var sum = value;
  if (RESIDUAL) { sum += residual[place]; }
  y[place] = sum;
}
