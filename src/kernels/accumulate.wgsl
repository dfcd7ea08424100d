// sum += term    sum, term: [n]   Where several paths bring a gradient to one tensor, the tape adds them up in order.
const THREADS = 64u;
struct Shape { n: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> sum: array<f32>;
@group(0) @binding(2) var<storage, read> term: array<f32>;

@compute @workgroup_size(THREADS)
fn accumulate(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
              @builtin(local_invocation_index) thread: u32) {
  let first = ((group.x + group.y * groups.x) * THREADS + thread) * 4u;
  let end = min(first + 4u, shape.n);
  for (var i = first; i < end; i++) { sum[i] += term[i]; }
}
