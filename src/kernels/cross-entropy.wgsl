// loss = −(1 − ε) · ln p[label] − ε · mean(ln p), p = softmax(x).    x, dx: [rows, classes]   labels, losses: [rows]
const THREADS = 64u;
struct Shape { rows: u32, classes: u32, ignore: i32, smoothing: f32, each: u32 }   // each: dy has a number for each row
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<i32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> counts: array<f32>;      // 1, or 0 where the label is ignored
@group(0) @binding(5) var<storage, read_write> log_sums: array<f32>;

// What a label that is no class makes: NaN, hidden from the compiler.
fn nan(exists: bool) -> f32 { return bitcast<f32>(select(0x7fc00000u, 0u, exists)); }

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * groups.x) * THREADS + thread;
  if (row >= shape.rows) { return; }
  let base = row * shape.classes;
  var largest = x[base];
  for (var k = 1u; k < shape.classes; k++) { largest = max(largest, x[base + k]); }
  var powers = 0.0;
  var sum = 0.0;
  for (var k = 0u; k < shape.classes; k++) {
    powers += exp(x[base + k] - largest);
    sum += x[base + k] - largest;
  }
  let log_sum = log(powers);
  let label = labels[row];
  let counted = label != shape.ignore;
  let exists = label >= 0 && label < i32(shape.classes);
  let own = x[base + select(0u, u32(label), exists)] - largest;
  let loss = log_sum - (1.0 - shape.smoothing) * own - shape.smoothing * sum / f32(shape.classes);
  losses[row] = select(0.0, select(nan(exists), loss, exists), counted);
  counts[row] = select(0.0, 1.0, counted);
  log_sums[row] = largest + log_sum;
}

// dx = dy / count · (p − (1 − ε) · [k = label] − ε / classes)
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> count: array<f32>;
@group(0) @binding(5) var<storage, read> log_sums_in: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.rows * shape.classes) { return; }
  let row = id / shape.classes;
  let label = labels[row];
  let counted = label != shape.ignore;
  let exists = label >= 0 && label < i32(shape.classes);
  var d = exp(x[id] - log_sums_in[row]) - shape.smoothing / f32(shape.classes);
  if (i32(id - row * shape.classes) == label) { d -= 1.0 - shape.smoothing; }
  if (!exists) { d = nan(exists); }
  dx[id] = select(0.0, d * dy[select(0u, row, shape.each == 1u)] / count[0], counted);
}
