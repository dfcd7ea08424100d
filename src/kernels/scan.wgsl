// Running sums along the middle axis, and the lower triangle of the last two.    x, y: [outer, length, inner]
const THREADS = 64u;
struct Shape { outer: u32, length: u32, inner: u32, backwards: u32, diagonal: i32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// y[k] = x[0] + … + x[k]; backwards: x[k] + … + x[length − 1].
@compute @workgroup_size(THREADS)
fn cumsum(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.inner) { return; }
  let base = id / shape.inner * shape.length * shape.inner + id % shape.inner;
  var sum = 0.0;
  for (var k = 0u; k < shape.length; k++) {
    let i = base + select(k, shape.length - 1u - k, shape.backwards == 1u) * shape.inner;
    sum += x[i];
    y[i] = sum;
  }
}

// y = x where column ≤ row + diagonal, else 0.
@compute @workgroup_size(THREADS)
fn tril(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.length * shape.inner) { return; }
  let column = i32(id % shape.inner);
  let row = i32(id / shape.inner % shape.length);
  y[id] = select(0.0, x[id], column <= row + shape.diagonal);
}
