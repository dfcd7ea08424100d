// y = A·B + bias + temb + residual on matrix units: A and B are halves, sums are f32.   y: [batch, M, N]
// A and B are matrices with strides as in matmul.wgsl, or what the taps of a convolution see, as in conv2d.wgsl:
// A [pixel, (tap, channel)] forwards and for the gradient of x, B [pixel, (tap, channel)] for that of the weights.
// A workgroup of SUBGROUPS_M × SUBGROUPS_N subgroups makes a tile of y, each FRAGS_M × FRAGS_N units of it. Slices of DEPTH
// columns of A and rows of B pass through workgroup memory in chunks of 8 neighbouring halves; the next slice is loaded
// into registers meanwhile. A unit has no elements, so sums too pass through workgroup memory on their way to y.
// As it stands, units are plain arithmetic; subgroup-matrix.ts puts real ones in their place.
const GATHER = false;     // A is gathered
const GATHER_B = false;   // B is, and wide
const A_ALONG_K = true;   // neighbours in a chunk lie along K, else along M
const B_ALONG_K = true;   // … else along N
const A_WIDE = false;     // a chunk is one word of memory, wholly inside the matrix or outside
const B_WIDE = false;
const WIDTH = 4u;         // numbers in a V
const STAGES = 2u;        // slices in workgroup memory
const UNIT_M = 16u;
const UNIT_N = 16u;
const UNIT_K = 16u;
const FRAGS_M = 2u;
const FRAGS_N = 2u;
const SUBGROUPS_M = 2u;
const SUBGROUPS_N = 2u;
const LANES = 32u;
const DEPTH = 32u;
const CHUNK = 8u;
alias V = vec4<f32>;      // or f32: see `singles` in matrix-units.ts

const TILE_M = SUBGROUPS_M * FRAGS_M * UNIT_M;
const TILE_N = SUBGROUPS_N * FRAGS_N * UNIT_N;
const THREADS = SUBGROUPS_M * SUBGROUPS_N * LANES;
const STEPS = DEPTH / UNIT_K;
const A_LOADS = TILE_M * DEPTH / CHUNK / THREADS;
const B_LOADS = TILE_N * DEPTH / CHUNK / THREADS;
// Lines of chunks, one chunk longer than they need be: neighbouring lines begin in other banks.
const A_RUN = select(TILE_M, DEPTH, A_ALONG_K) / CHUNK;
const B_RUN = select(TILE_N, DEPTH, B_ALONG_K) / CHUNK;
const A_PITCH = A_RUN + 1u;
const B_PITCH = B_RUN + 1u;
const A_SIZE = select(DEPTH, TILE_M, A_ALONG_K) * A_PITCH;
const B_SIZE = select(DEPTH, TILE_N, B_ALONG_K) * B_PITCH;
// A strip of the tile, UNIT_M rows of each subgroup, four sums to a word.
const STRIP_ROWS = SUBGROUPS_M * UNIT_M;
const STRIP_PITCH = TILE_N / 4u + 1u;
const STAGE = A_SIZE + B_SIZE;

struct Shape {
  M: u32, N: u32, K: u32, tilesN: u32, tiles: u32, splits: u32, chunk: u32, inner: u32,
  aRow: u32, aCol: u32, bRow: u32, bCol: u32,
  aStart: u32, aOuter: u32, aInner: u32, bStart: u32, bOuter: u32, bInner: u32,
  yStart: u32, yRow: u32, yOuter: u32, yInner: u32, ySplit: u32,
  hasBias: u32, hasTemb: u32, hasResidual: u32,
  height: u32, width: u32, inHeight: u32, inWidth: u32, inChannels: u32,   // from here on as in conv2d.wgsl
  tapsX: u32, stride: i32, dilationY: i32, dilationX: i32, originY: i32, originX: i32,
  outHeight: u32, outWidth: u32, outStep: u32, outY: u32, outX: u32,
  weightTapY: u32, weightTapX: u32, weightChannel: u32,
}
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<vec4u>;        // 8 halves to a word
@group(0) @binding(2) var<storage, read> b: array<vec4u>;
@group(0) @binding(3) var<storage, read> bias: array<V>;         // [N]
@group(0) @binding(4) var<storage, read> temb: array<V>;         // [images, N]
@group(0) @binding(5) var<storage, read> residual: array<V>;     // like y
@group(0) @binding(6) var<storage, read_write> y: array<V>;

var<workgroup> stage: array<vec4u, max(STAGES * STAGE, STRIP_ROWS * STRIP_PITCH)>;

const NOWHERE = 0xffffffffu;

// What a thread loads of each slice: the chunk from (line, k) on, where a line is a row of A or a column of B.
struct Source {
  line: u32,
  k: u32,
  first: u32,      // where its line begins; A gathered: the first line of its image; B gathered: its channel
  origin: vec2i,   // A gathered: the source of tap 0; B gathered: that of its tap for pixel 0
}

fn a_source(slot: u32, row0: u32, first: u32) -> Source {
  let row = row0 + select(slot % A_RUN * CHUNK, slot / A_RUN, A_ALONG_K);
  let k = select(slot / A_RUN, slot % A_RUN * CHUNK, A_ALONG_K);
  if (!GATHER) { return Source(row, k, first + row * shape.aRow, vec2i()); }
  let image_line = row / shape.width;
  let pixel = vec2i(i32(row % shape.width), i32(image_line % shape.height));
  let origin = pixel * shape.stride + vec2i(shape.originX, shape.originY);
  return Source(row, k, image_line / shape.height * shape.inHeight, origin);
}

fn b_source(slot: u32, col0: u32, first: u32) -> Source {
  let col = col0 + select(slot % B_RUN * CHUNK, slot / B_RUN, B_ALONG_K);
  let k = select(slot / B_RUN, slot % B_RUN * CHUNK, B_ALONG_K);
  if (!GATHER_B) { return Source(col, k, first + col * shape.bCol, vec2i()); }
  let origin = tap_offset(col / shape.inChannels) + vec2i(shape.originX, shape.originY);
  return Source(col, k, col % shape.inChannels, origin);
}

fn tap_offset(tap: u32) -> vec2i {
  return vec2i(i32(tap % shape.tapsX) * shape.dilationX, i32(tap / shape.tapsX) * shape.dilationY);
}

// Where channel 0 of a pixel of the image that begins at `first` lies, if inside.
fn pixel_place(first: u32, pixel: vec2i) -> u32 {
  let at = vec2u(pixel);
  if (at.x >= shape.inWidth || at.y >= shape.inHeight) { return NOWHERE; }
  return ((first + at.y) * shape.inWidth + at.x) * shape.inChannels;
}

// Where the half at k lies, of the source's line.
fn a_place(source: Source, k: u32) -> u32 {
  if (!GATHER) { return source.first + k * shape.aCol; }
  let place = pixel_place(source.first, source.origin + tap_offset(k / shape.inChannels));
  return select(place + k % shape.inChannels, NOWHERE, place == NOWHERE);
}

fn b_place(source: Source, k: u32) -> u32 {
  if (GATHER_B) {
    let line = k / shape.width;
    let pixel = vec2i(i32(k % shape.width), i32(line % shape.height)) * shape.stride;
    let place = pixel_place(line / shape.height * shape.inHeight, source.origin + pixel);
    return select(place + source.first, NOWHERE, place == NOWHERE);
  }
  if (!GATHER || B_ALONG_K) { return source.first + k * shape.bRow; }
  let tap = k / shape.inChannels;
  return source.first + tap / shape.tapsX * shape.weightTapY + tap % shape.tapsX * shape.weightTapX
    + k % shape.inChannels * shape.weightChannel;
}

// The chunk at k of a source; zeros beyond M, N and the end of K.
fn a_chunk(source: Source, k0: u32, kEnd: u32) -> vec4u {
  let k = k0 + source.k;
  var chunk: vec4u;
  if (A_WIDE) {
    if (source.line < shape.M && k < kEnd) {
      let at = a_place(source, k);
      if (at != NOWHERE) { chunk = a[at / CHUNK]; }
    }
    return chunk;
  }
  for (var n = 0u; n < CHUNK; n++) {
    let along = select(0u, n, A_ALONG_K);
    let across = n - along;
    if (source.line + across < shape.M && k + along < kEnd) {
      let at = a_place(source, k + along);
      if (at != NOWHERE) { chunk[n / 2u] |= a_half(at + across) << (n % 2u * 16u); }
    }
  }
  return chunk;
}

fn b_chunk(source: Source, k0: u32, kEnd: u32) -> vec4u {
  let k = k0 + source.k;
  var chunk: vec4u;
  if (B_WIDE) {
    if (source.line < shape.N && k < kEnd) {
      let at = b_place(source, k);
      if (at != NOWHERE) { chunk = b[at / CHUNK]; }
    }
    return chunk;
  }
  for (var n = 0u; n < CHUNK; n++) {
    let along = select(0u, n, B_ALONG_K);
    let across = n - along;
    if (source.line + across < shape.N && k + along < kEnd) {
      chunk[n / 2u] |= b_half(b_place(source, k + along) + across) << (n % 2u * 16u);
    }
  }
  return chunk;
}

fn a_half(at: u32) -> u32 { return (a[at / CHUNK][at / 2u % 4u] >> (at % 2u * 16u)) & 0xffffu; }
fn b_half(at: u32) -> u32 { return (b[at / CHUNK][at / 2u % 4u] >> (at % 2u * 16u)) & 0xffffu; }

// Where a unit of a slice begins, and the slot of a thread's chunk.
fn a_unit(row: u32, k: u32) -> u32 { return select(k * A_PITCH + row / CHUNK, row * A_PITCH + k / CHUNK, A_ALONG_K); }
fn b_unit(col: u32, k: u32) -> u32 { return select(k * B_PITCH + col / CHUNK, col * B_PITCH + k / CHUNK, B_ALONG_K); }
fn a_slot(slot: u32) -> u32 { return slot / A_RUN * A_PITCH + slot % A_RUN; }
fn b_slot(slot: u32) -> u32 { return A_SIZE + slot / B_RUN * B_PITCH + slot % B_RUN; }

// Where row `row` of y begins.
fn y_row(row: u32, first: u32) -> u32 {
  if (!GATHER) { return first + row * shape.yRow; }
  let line = row / shape.width;
  let out_line = line / shape.height * shape.outHeight + line % shape.height * shape.outStep + shape.outY;
  return (out_line * shape.outWidth + row % shape.width * shape.outStep + shape.outX) * shape.N;
}

// The sum at a place of the strip, counted in numbers.
fn strip(at: u32) -> V { return bitcast<V>(stage[at / 4u]); }

@compute @workgroup_size(THREADS)
fn multiply(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let tile = group.x + group.y * groups.x;
  if (tile >= shape.tiles) { return; }
  let row0 = tile / shape.tilesN * TILE_M;
  let col0 = tile % shape.tilesN * TILE_N;
  let batch = group.z / shape.splits;
  let part = group.z % shape.splits;
  let outer = batch / shape.inner;
  let inner = batch % shape.inner;
  let kFirst = part * shape.chunk;
  let kEnd = min(kFirst + shape.chunk, shape.K);

  let aFirst = shape.aStart + outer * shape.aOuter + inner * shape.aInner;
  let bFirst = shape.bStart + outer * shape.bOuter + inner * shape.bInner;
  var aSource: array<Source, A_LOADS>;
  var bSource: array<Source, B_LOADS>;
  var aHeld: array<vec4u, A_LOADS>;
  var bHeld: array<vec4u, B_LOADS>;
  for (var i = 0u; i < A_LOADS; i++) { aSource[i] = a_source(thread + i * THREADS, row0, aFirst); }
  for (var i = 0u; i < B_LOADS; i++) { bSource[i] = b_source(thread + i * THREADS, col0, bFirst); }

  let team = team_of(thread);
  let teamRow = team / SUBGROUPS_N;
  let teamCol = team % SUBGROUPS_N;
  var sums: array<array<Result, FRAGS_N>, FRAGS_M>;
  var now = 0u; // where in `stage` the slice before k0 lies
  for (var k0 = kFirst; k0 < kEnd + DEPTH; k0 += DEPTH) {
    for (var i = 0u; i < A_LOADS; i++) { aHeld[i] = a_chunk(aSource[i], k0, kEnd); }
    for (var i = 0u; i < B_LOADS; i++) { bHeld[i] = b_chunk(bSource[i], k0, kEnd); }
    if (k0 > kFirst) {
      for (var step = 0u; step < STEPS; step++) {
        var left: array<Left, FRAGS_M>;
        for (var i = 0u; i < FRAGS_M; i++) {
          left[i] = load_left(now + a_unit((teamRow * FRAGS_M + i) * UNIT_M, step * UNIT_K), A_PITCH);
        }
        for (var j = 0u; j < FRAGS_N; j++) {
          let right = load_right(now + A_SIZE + b_unit((teamCol * FRAGS_N + j) * UNIT_N, step * UNIT_K), B_PITCH);
          for (var i = 0u; i < FRAGS_M; i++) { sums[i][j] = multiply_add(left[i], right, sums[i][j]); }
        }
      }
      if (STAGES == 1u) { workgroupBarrier(); } else { now = STAGE - now; }
    }
    for (var i = 0u; i < A_LOADS; i++) { stage[now + a_slot(thread + i * THREADS)] = aHeld[i]; }
    for (var i = 0u; i < B_LOADS; i++) { stage[now + b_slot(thread + i * THREADS)] = bHeld[i]; }
    workgroupBarrier();
  }

  let yFirst = shape.yStart + outer * shape.yOuter + inner * shape.yInner;
  for (var i = 0u; i < FRAGS_M; i++) {
    for (var j = 0u; j < FRAGS_N; j++) {
      store_result(teamRow * UNIT_M * STRIP_PITCH + (teamCol * FRAGS_N + j) * UNIT_N / 4u, sums[i][j], STRIP_PITCH);
    }
    workgroupBarrier();
    for (var place = thread; place < STRIP_ROWS * TILE_N / WIDTH; place += THREADS) {
      let line = place / (TILE_N / WIDTH);
      let col = place % (TILE_N / WIDTH) * WIDTH;
      let row = row0 + (line / UNIT_M * FRAGS_M + i) * UNIT_M + line % UNIT_M;
      if (row < shape.M && col0 + col < shape.N) {
        let at = y_row(row, yFirst) + col0 + col;
        var sum = strip(line * STRIP_PITCH * 4u + col);
        // Of the parts of a sum, the first has the addends.
        if (shape.hasBias != 0u && part == 0u) { sum += bias[(col0 + col) / WIDTH]; }
        if (shape.hasTemb != 0u && part == 0u) {
          sum += temb[(row / (shape.height * shape.width) * shape.N + col0 + col) / WIDTH];
        }
        if (shape.hasResidual != 0u && part == 0u) { sum += residual[at / WIDTH]; }
        y[(at + part * shape.ySplit) / WIDTH] = sum;
      }
    }
    workgroupBarrier();
  }
}

// Emulated units, for adapters without: from here on subgroup-matrix.ts replaces everything.
// Each lane has a few neighbours of one row of the result. A unit that was loaded is a place, read when it is multiplied.
const SHARE = UNIT_M * UNIT_N / LANES;
struct Left { first: u32, pitch: u32 }
struct Right { first: u32, pitch: u32 }
struct Result { sums: array<f32, SHARE> }
var<private> lane: u32;

// n, unknown to the compiler: it would write out all loops, and take minutes.
fn rolled(n: u32) -> u32 { return min(n, n * shape.tiles); }

fn team_of(thread: u32) -> u32 {
  lane = thread % LANES;
  return thread / LANES;
}

fn half_at(at: u32) -> f32 { return unpack2x16float(stage[at / CHUNK][at / 2u % 4u] >> (at % 2u * 16u)).x; }
fn load_left(first: u32, pitch: u32) -> Left { return Left(first * CHUNK, pitch * CHUNK); }
fn load_right(first: u32, pitch: u32) -> Right { return Right(first * CHUNK, pitch * CHUNK); }

fn multiply_add(left: Left, right: Right, before: Result) -> Result {
  let row = lane * SHARE / UNIT_N;
  var unit = before;
  for (var k = 0u; k < UNIT_K; k++) {
    let l = half_at(left.first + select(k * left.pitch + row, row * left.pitch + k, A_ALONG_K));
    for (var n = 0u; n < SHARE; n++) {
      let col = lane * SHARE % UNIT_N + n;
      unit.sums[n] += l * half_at(right.first + select(k * right.pitch + col, col * right.pitch + k, B_ALONG_K));
    }
  }
  return unit;
}

fn store_result(first: u32, unit: Result, pitch: u32) {
  let row = lane * SHARE / UNIT_N;
  for (var n = 0u; n < SHARE; n++) {
    let col = lane * SHARE % UNIT_N + n;
    stage[first + row * pitch + col / 4u][col % 4u] = bitcast<u32>(unit.sums[n]);
  }
}
