// y = act((x − μ) · r · w + b) over each group of channels of each image.   x, y: [B, P, C]   w, b: [C]   μ, r: [B, G]
// Sums go channel by channel: `sums` makes [B, chunks, 2, C], `finish` merges a group's channels, `apply` normalises;
// `whole` does it all where there are enough groups to keep every core busy.
const THREADS = 32u;
const AFFINE = true;       // w present
const BIAS = true;         // b present
const SILU = false;        // act(z) = z · sigmoid(z), else z
alias V = vec4f;           // f32 where C is no multiple of 4; `width` counts V, the rest counts numbers

struct Shape { batch: u32, pixels: u32, width: u32, groups: u32, size: u32, chunks: u32, chunk: u32, eps: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read> weight: array<V>;
@group(0) @binding(3) var<storage, read> bias: array<V>;
@group(0) @binding(4) var<storage, read> dy: array<V>;
@group(0) @binding(5) var<storage, read> scale: array<V>;
@group(0) @binding(6) var<storage, read> shift: array<V>;
@group(0) @binding(7) var<storage, read_write> out: array<V>;
@group(0) @binding(2) var<storage, read> start: array<V>;   // x, or its first part where x is one of several

fn sigmoid(z: V) -> V {
  return 1.0 / (1.0 + exp(min(-z, V(80.0))));
}

fn index(group: vec3u, groups: vec3u, thread: u32) -> u32 { return (group.x + group.y * groups.x) * THREADS + thread; }

// Σ (x − first) and Σ (x − first)² of one channel over one chunk of pixels, where first is the channel's first pixel.
@compute @workgroup_size(THREADS)
fn sums(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.chunks * shape.width) { return; }
  let width = shape.width;
  let block = id / width;
  let column = id - block * width;
  let image = block / shape.chunks;
  let first = (block - image * shape.chunks) * shape.chunk;
  let count = min(shape.chunk, shape.pixels - min(first, shape.pixels));
  let base = image * shape.pixels * width + column;
  let origin = start[base];
  var i = base + first * width;
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var k = 0u; k < count; k++) {
    let d = x[i] - origin;
    s1 += d;
    s2 += d * d;
    i += width;
  }
  out[2u * block * width + column] = s1;
  out[(2u * block + 1u) * width + column] = s2;
}

// One thread for each (image, group): mean and variance from the sums of its channels, then scale and shift of each.
@group(0) @binding(1) var<storage, read> x_numbers: array<f32>;
@group(0) @binding(2) var<storage, read> weight_numbers: array<f32>;
@group(0) @binding(3) var<storage, read> bias_numbers: array<f32>;
@group(0) @binding(4) var<storage, read> partial: array<f32>;
@group(0) @binding(5) var<storage, read_write> moments: array<f32>;     // [2, B, G]: mean, 1 / √(variance + eps)
@group(0) @binding(6) var<storage, read_write> scale_out: array<f32>;   // [B, C]
@group(0) @binding(7) var<storage, read_write> shift_out: array<f32>;
@compute @workgroup_size(THREADS)
fn finish(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.groups) { return; }
  let image = id / shape.groups;
  let channels = shape.groups * shape.size;
  let first = (id - image * shape.groups) * shape.size;
  let n = f32(shape.pixels);
  // Chan et al. 1979: merge (count, mean, Σ squares) of channels; every channel has the same count.
  var mean = 0.0;
  var m2 = 0.0;
  for (var k = 0u; k < shape.size; k++) {
    let c = first + k;
    var s1 = 0.0;
    var s2 = 0.0;
    for (var j = 0u; j < shape.chunks; j++) {
      let at = 2u * (image * shape.chunks + j) * channels + c;
      s1 += partial[at];
      s2 += partial[at + channels];
    }
    let channel_mean = x_numbers[image * shape.pixels * channels + c] + s1 / n;
    let delta = channel_mean - mean;
    mean += delta / f32(k + 1u);
    m2 += max(s2 - s1 * s1 / n, 0.0) + delta * delta * n * f32(k) / f32(k + 1u);
  }
  let rstd = inverseSqrt(m2 / (n * f32(shape.size)) + shape.eps);
  moments[id] = mean;
  moments[shape.batch * shape.groups + id] = rstd;
  for (var k = 0u; k < shape.size; k++) {
    let c = first + k;
    var a = rstd;
    var b = 0.0;
    if (AFFINE) { a *= weight_numbers[c]; }
    if (BIAS) { b = bias_numbers[c]; }
    scale_out[image * channels + c] = a;
    shift_out[image * channels + c] = b - mean * a;
  }
}

// One thread for each (image, chunk, channel): y = act(x · scale + shift).
@compute @workgroup_size(THREADS)
fn apply(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.chunks * shape.width) { return; }
  let width = shape.width;
  let block = id / width;
  let column = id - block * width;
  let image = block / shape.chunks;
  let first = (block - image * shape.chunks) * shape.chunk;
  let count = min(shape.chunk, shape.pixels - min(first, shape.pixels));
  let a = scale[image * width + column];
  let b = shift[image * width + column];
  var i = (image * shape.pixels + first) * width + column;
  for (var k = 0u; k < count; k++) {
    var z = x[i] * a + b;
    if (SILU) { z *= sigmoid(z); }
    out[i] = z;
    i += width;
  }
}

// All of it in one pass for many small groups: one thread for each (image, group), whose channels are whole V.
@group(0) @binding(4) var<storage, read_write> whole_out: array<V>;
@group(0) @binding(6) var<storage, read_write> whole_scale: array<V>;
@group(0) @binding(7) var<storage, read_write> whole_shift: array<V>;
fn across(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }

@compute @workgroup_size(THREADS)
fn whole(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.groups) { return; }
  let width = shape.width;
  let image = id / shape.groups;
  let columns = width / shape.groups;
  let first = (id - image * shape.groups) * columns;
  let base = image * shape.pixels * width + first;
  let origin = x[base];
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var k = 0u; k < columns; k++) {
    var i = base + k;
    for (var pixel = 0u; pixel < shape.pixels; pixel++) {
      let d = x[i] - origin;
      s1 += d;
      s2 += d * d;
      i += width;
    }
  }
  let n = f32(shape.pixels * columns);
  let count = f32(shape.pixels * shape.size);
  let lane_means = origin + s1 / n;
  let mean = across(lane_means) * n / count;
  let spread = lane_means - V(mean);
  let rstd = inverseSqrt(across(max(s2 - s1 * s1 / n, V(0.0)) + n * spread * spread) / count + shape.eps);
  moments[id] = mean;
  moments[shape.batch * shape.groups + id] = rstd;
  for (var k = 0u; k < columns; k++) {
    var a = V(rstd);
    var b = V(0.0);
    if (AFFINE) { a *= weight[first + k]; }
    if (BIAS) { b = bias[first + k]; }
    b -= mean * a;
    whole_scale[image * width + first + k] = a;
    whole_shift[image * width + first + k] = b;
    var i = base + k;
    for (var pixel = 0u; pixel < shape.pixels; pixel++) {
      var z = x[i] * a + b;
      if (SILU) { z *= sigmoid(z); }
      whole_out[i] = z;
      i += width;
    }
  }
}

// ---- Backward.  dz = dy · act′(z)   dw = Σ dz · x̂   db = Σ dz
//                 dx = r · (dz · w − mean(dz · w) − x̂ · mean(dz · w · x̂))

fn slope(z: V) -> V {
  let s = sigmoid(z);
  return s * (1.0 + z * (1.0 - s));
}

// Σ dz and Σ dz · x of one channel over one chunk of pixels; x is taken from the channel's first pixel.
@compute @workgroup_size(THREADS)
fn backward_sums(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.chunks * shape.width) { return; }
  let width = shape.width;
  let block = id / width;
  let column = id - block * width;
  let image = block / shape.chunks;
  let first = (block - image * shape.chunks) * shape.chunk;
  let count = min(shape.chunk, shape.pixels - min(first, shape.pixels));
  let a = scale[image * width + column];
  let b = shift[image * width + column];
  let base = image * shape.pixels * width + column;
  let origin = start[base];
  var i = base + first * width;
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var k = 0u; k < count; k++) {
    var dz = dy[i];
    let value = x[i];
    if (SILU) { dz *= slope(value * a + b); }
    s1 += dz;
    s2 += dz * (value - origin);
    i += width;
  }
  out[2u * block * width + column] = s1;
  out[(2u * block + 1u) * width + column] = s2;
}

// dx = dz · scale + x · p + q: the first B · G threads find p and q for the channels of a group, the other C dw and db.
@group(0) @binding(3) var<storage, read> moments_in: array<f32>;
@group(0) @binding(5) var<storage, read_write> pq: array<f32>;          // [2, B, C]
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(7) var<storage, read_write> dbias: array<f32>;

// Σ dz and Σ dz · x̂ of one channel of one image.
fn channel_sums(image: u32, c: u32) -> vec2f {
  let channels = shape.groups * shape.size;
  let g = image * shape.groups + c / shape.size;
  var s1 = 0.0;
  var s2 = 0.0;
  for (var j = 0u; j < shape.chunks; j++) {
    let at = 2u * (image * shape.chunks + j) * channels + c;
    s1 += partial[at];
    s2 += partial[at + channels];
  }
  let from_mean = x_numbers[image * shape.pixels * channels + c] - moments_in[g];
  return vec2f(s1, moments_in[shape.batch * shape.groups + g] * (s2 + s1 * from_mean));
}

@compute @workgroup_size(THREADS)
fn backward_finish(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  let channels = shape.groups * shape.size;
  let pairs = shape.batch * shape.groups;
  if (id >= pairs + channels) { return; }
  if (id >= pairs) {
    var total = vec2f();
    for (var image = 0u; image < shape.batch; image++) { total += channel_sums(image, id - pairs); }
    dbias[id - pairs] = total.x;
    dweight[id - pairs] = total.y;
    return;
  }
  let image = id / shape.groups;
  let first = (id - image * shape.groups) * shape.size;
  var m = vec2f();
  for (var k = 0u; k < shape.size; k++) {
    var w = 1.0;
    if (AFFINE) { w = weight_numbers[first + k]; }
    m += w * channel_sums(image, first + k);
  }
  m /= f32(shape.pixels * shape.size);
  let mean = moments_in[id];
  let rstd = moments_in[pairs + id];
  let p = -rstd * rstd * m.y;
  for (var k = 0u; k < shape.size; k++) {
    pq[image * channels + first + k] = p;
    pq[(shape.batch + image) * channels + first + k] = -rstd * m.x - p * mean;
  }
}

// The same walk as `apply`.
@group(0) @binding(2) var<storage, read> pq_in: array<V>;
@compute @workgroup_size(THREADS)
fn backward_apply(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                  @builtin(local_invocation_index) thread: u32) {
  let id = index(group, groups, thread);
  if (id >= shape.batch * shape.chunks * shape.width) { return; }
  let width = shape.width;
  let block = id / width;
  let column = id - block * width;
  let image = block / shape.chunks;
  let first = (block - image * shape.chunks) * shape.chunk;
  let count = min(shape.chunk, shape.pixels - min(first, shape.pixels));
  let a = scale[image * width + column];
  let b = shift[image * width + column];
  let p = pq_in[image * width + column];
  let q = pq_in[(shape.batch + image) * width + column];
  var i = (image * shape.pixels + first) * width + column;
  for (var k = 0u; k < count; k++) {
    var dz = dy[i];
    let value = x[i];
    if (SILU) { dz *= slope(value * a + b); }
    out[i] = dz * a + value * p + q;
    i += width;
  }
}
