// y = scale · sum of x over its middle axis, in order, + bias + residual.   x: [outer, count, inner]   y, residual: [outer, inner]
const THREADS = 64u;
struct Shape { size: u32, inner: u32, count: u32, biasSize: u32, hasResidual: u32, scale: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= shape.size) { return; }
  let inner = shape.inner;
  let count = shape.count;
  var at = (i / inner) * count * inner + i % inner;
  var sum = 0.0;
  for (var n = 0u; n < count; n++) {
    sum += x[at];
    at += inner;
  }
  sum *= shape.scale;
  if (shape.biasSize != 0u) { sum += bias[i % shape.biasSize]; }
  if (shape.hasResidual != 0u) { sum += residual[i]; }
  y[i] = sum;
}
