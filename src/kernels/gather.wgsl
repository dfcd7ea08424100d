// y[o, m, i] = x[o, at, i] along the middle axis.    x: [outer, length, inner]   y: [outer, count, inner]
// An index outside gives NaN, hidden from the compiler: 0 would look like a number of x.
// at = index[o, m, i], or index[m] where one index serves all (SHARED). Backward looks for each x among the indices.
const THREADS = 64u;
const SHARED = false;
struct Shape { outer: u32, length: u32, inner: u32, count: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read> source: array<f32>;
@group(0) @binding(3) var<storage, read_write> destination: array<f32>;

fn index_at(o: u32, m: u32, i: u32) -> u32 {
  if (SHARED) { return u32(index[m]); }
  return u32(index[(o * shape.count + m) * shape.inner + i]);
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.count * shape.inner) { return; }
  let i = id % shape.inner;
  let m = id / shape.inner % shape.count;
  let o = id / (shape.inner * shape.count);
  let at = index_at(o, m, i);
  let value = source[(o * shape.length + min(at, shape.length - 1u)) * shape.inner + i];
  destination[id] = select(bitcast<f32>(select(0x7fc00000u, 0u, at < shape.length)), value, at < shape.length);
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.length * shape.inner) { return; }
  let i = id % shape.inner;
  let k = id / shape.inner % shape.length;
  let o = id / (shape.inner * shape.length);
  var sum = 0.0;
  for (var m = 0u; m < shape.count; m++) {
    if (index_at(o, m, i) == k) { sum += source[(o * shape.count + m) * shape.inner + i]; }
  }
  destination[id] = sum;
}
