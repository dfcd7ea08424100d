// y = eˣ / Σ eˣ along the middle axis.    x, y, dy, dx: [outer, length, inner]
// Row kernels for inner = 1, with a team of threads for each row; column kernels with a thread for each (outer, inner).
const TEAM = 1u;           // threads that share a row
const ROWS = 32u;          // rows of a workgroup
const THREADS = TEAM * ROWS;
const LOG = false;         // y = x − ln Σ eˣ instead
alias V = vec4f;           // f32 where the last axis is no multiple of 4; sizes count V

struct Shape { outer: u32, length: u32, inner: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read> dy: array<V>;
@group(0) @binding(3) var<storage, read_write> out: array<V>;

const LOWEST = -3.4028234e38;
var<workgroup> shared_max: array<f32, THREADS>;
var<workgroup> shared_sum: array<f32, THREADS>;

fn across(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// (largest, Σ e^(x − largest)) of the whole team from those of its threads. Also adds plain sums, with largest 0.
fn merge(thread: u32, largest: f32, sum: f32) -> vec2f {
  if (TEAM == 1u) { return vec2f(largest, sum); }
  shared_max[thread] = largest;
  shared_sum[thread] = sum;
  for (var step = TEAM / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (thread % TEAM < step) {
      let m = max(shared_max[thread], shared_max[thread + step]);
      let own = shared_sum[thread] * exp(shared_max[thread] - m);
      shared_sum[thread] = own + shared_sum[thread + step] * exp(shared_max[thread + step] - m);
      shared_max[thread] = m;
    }
  }
  workgroupBarrier();
  let first = thread - thread % TEAM;
  return vec2f(shared_max[first], shared_sum[first]);
}

// Largest and Σ e^(x − largest) lane by lane in one pass, then over the lanes.
struct Running { largest: V, sum: V }
fn take(r: Running, v: V) -> Running {
  let m = max(r.largest, v);
  return Running(m, r.sum * exp(r.largest - m) + exp(v - m));
}

fn highest(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }

fn write(v: V, m: f32, sum: f32, log_sum: f32) -> V {
  if (LOG) { return v - m - log_sum; }
  return exp(v - m) / sum;
}

@compute @workgroup_size(THREADS)
fn rows(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * ROWS + thread / TEAM;
  let member = thread % TEAM;
  let length = select(0u, shape.length, row < shape.outer);
  let base = row * shape.length;
  var r = Running(V(LOWEST), V(0.0));
  for (var i = member; i < length; i += TEAM) { r = take(r, x[base + i]); }
  let m = highest(r.largest);
  let all = merge(thread, m, across(r.sum * exp(r.largest - m)));
  let log_sum = log(all.y);
  for (var i = member; i < length; i += TEAM) { out[base + i] = write(x[base + i], all.x, all.y, log_sum); }
}

// softmax: dx = y · (dy − Σ dy · y)     log: dx = dy − e^y · Σ dy.    `x` is y here.
fn term(y: V, d: V) -> V {
  if (LOG) { return d; }
  return d * y;
}
fn gradient(y: V, d: V, sum: V) -> V {
  if (LOG) { return d - exp(y) * sum; }
  return y * (d - sum);
}

@compute @workgroup_size(THREADS)
fn rows_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * ROWS + thread / TEAM;
  let member = thread % TEAM;
  let length = select(0u, shape.length, row < shape.outer);
  let base = row * shape.length;
  var total = V(0.0);
  for (var i = member; i < length; i += TEAM) { total += term(x[base + i], dy[base + i]); }
  let sum = V(merge(thread, 0.0, across(total)).y);
  for (var i = member; i < length; i += TEAM) { out[base + i] = gradient(x[base + i], dy[base + i], sum); }
}

@compute @workgroup_size(THREADS)
fn columns(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.inner) { return; }
  let first = id / shape.inner * shape.length * shape.inner + id % shape.inner;
  var r = Running(V(LOWEST), V(0.0));
  for (var k = 0u; k < shape.length; k++) { r = take(r, x[first + k * shape.inner]); }
  let log_sum = log(r.sum);
  for (var k = 0u; k < shape.length; k++) {
    let i = first + k * shape.inner;
    if (LOG) { out[i] = x[i] - r.largest - log_sum; } else { out[i] = exp(x[i] - r.largest) / r.sum; }
  }
}

@compute @workgroup_size(THREADS)
fn columns_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.inner) { return; }
  let first = id / shape.inner * shape.length * shape.inner + id % shape.inner;
  var total = V(0.0);
  for (var k = 0u; k < shape.length; k++) { total += term(x[first + k * shape.inner], dy[first + k * shape.inner]); }
  for (var k = 0u; k < shape.length; k++) {
    let i = first + k * shape.inner;
    out[i] = gradient(x[i], dy[i], total);
  }
}
