// y = (x − μ) · r · w + b over the last axis.   x, y, dy, dx: [rows, width]   w, b: [width]   moments: [rows, 2]: μ, r
const TEAM = 1u;           // threads that share a row
const ROWS = 32u;          // rows of a workgroup
const THREADS = TEAM * ROWS;
const AFFINE = true;       // w present
const BIAS = true;         // b present
alias V = vec4f;           // f32 where the width is no multiple of 4; `width` counts V

struct Shape { rows: u32, width: u32, count: f32, eps: f32, chunks: u32, chunk: u32 }     // count: numbers in a row
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read> weight: array<V>;
@group(0) @binding(3) var<storage, read> bias: array<V>;
@group(0) @binding(4) var<storage, read_write> y: array<V>;
@group(0) @binding(5) var<storage, read_write> moments: array<vec2f>;

var<workgroup> shared_values: array<vec2f, THREADS>;

fn across(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// Two sums over the team of this thread, the same for all of it.
fn team_sum(thread: u32, value: vec2f) -> vec2f {
  if (TEAM == 1u) { return value; }
  workgroupBarrier();
  shared_values[thread] = value;
  for (var step = TEAM / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (thread % TEAM < step) { shared_values[thread] += shared_values[thread + step]; }
  }
  workgroupBarrier();
  return shared_values[thread - thread % TEAM];
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * ROWS + thread / TEAM;
  let member = thread % TEAM;
  let width = select(0u, shape.width, row < shape.rows);
  let base = min(row, shape.rows - 1u) * shape.width;
  // Shifted by the row's first numbers, so that a large mean costs no accuracy.
  let origin = across(x[base]) / across(V(1.0));
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var i = member; i < width; i += TEAM) {
    let d = x[base + i] - origin;
    s1 += d;
    s2 += d * d;
  }
  let s = team_sum(thread, vec2f(across(s1), across(s2))) / shape.count;
  let mean = origin + s.x;
  let variance = s.y - s.x * s.x;
  // max() may turn NaN, the variance of infinities, into 0; bits do not lie.
  let is_nan = (bitcast<u32>(variance) & 0x7fffffffu) > 0x7f800000u;
  let rstd = inverseSqrt(select(max(variance, 0.0), variance, is_nan) + shape.eps);
  for (var i = member; i < width; i += TEAM) {
    var v = (x[base + i] - mean) * rstd;
    if (AFFINE) { v *= weight[i]; }
    if (BIAS) { v += bias[i]; }
    y[base + i] = v;
  }
  if (member == 0u && row < shape.rows) { moments[row] = vec2f(mean, rstd); }
}

// dx = r · (dy · w − mean(dy · w) − x̂ · mean(dy · w · x̂))
@group(0) @binding(3) var<storage, read> dy: array<V>;
@group(0) @binding(5) var<storage, read> moments_in: array<vec2f>;
@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * ROWS + thread / TEAM;
  let member = thread % TEAM;
  let width = select(0u, shape.width, row < shape.rows);
  let base = min(row, shape.rows - 1u) * shape.width;
  let m = moments_in[min(row, shape.rows - 1u)];
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var i = member; i < width; i += TEAM) {
    var d = dy[base + i];
    if (AFFINE) { d *= weight[i]; }
    s1 += d;
    s2 += d * ((x[base + i] - m.x) * m.y);
  }
  let s = team_sum(thread, vec2f(across(s1), across(s2))) / shape.count;
  for (var i = member; i < width; i += TEAM) {
    var d = dy[base + i];
    if (AFFINE) { d *= weight[i]; }
    y[base + i] = m.y * (d - s.x - (x[base + i] - m.x) * m.y * s.y);
  }
}

// Σ dy · x̂ and Σ dy over each chunk of rows, a thread for each (chunk, column).    partial: [2, chunks, width]
@group(0) @binding(6) var<storage, read_write> partial: array<V>;
@compute @workgroup_size(THREADS)
fn columns(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.chunks * shape.width) { return; }
  let chunk = id / shape.width;
  let first = chunk * shape.chunk;
  let end = min(first + shape.chunk, shape.rows);
  var i = first * shape.width + (id - chunk * shape.width);
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var row = first; row < end; row++) {
    let m = moments_in[row];
    let d = dy[i];
    s1 += d * ((x[i] - m.x) * m.y);
    s2 += d;
    i += shape.width;
  }
  partial[id] = s1;
  partial[shape.chunks * shape.width + id] = s2;
}

// dw and db: the sums over the chunks.
@group(0) @binding(1) var<storage, read> partial_in: array<V>;
@group(0) @binding(6) var<storage, read_write> dweight: array<V>;
@group(0) @binding(7) var<storage, read_write> dbias: array<V>;
@compute @workgroup_size(THREADS)
fn finish(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let column = group.x * THREADS + thread;
  if (column >= shape.width) { return; }
  var s1 = V(0.0);
  var s2 = V(0.0);
  for (var chunk = 0u; chunk < shape.chunks; chunk++) {
    s1 += partial_in[chunk * shape.width + column];
    s2 += partial_in[(shape.chunks + chunk) * shape.width + column];
  }
  dweight[column] = s1;
  dbias[column] = s2;
}
