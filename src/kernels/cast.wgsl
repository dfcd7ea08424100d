// y = x in another type, four numbers at a time.    x, y: [n vec4s]
// f32 → i32 goes towards zero; f16 is an f32 to kernels.
const THREADS = 256u;
alias From = vec4f;
alias To = vec4f;
struct Shape { n: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<From>;
@group(0) @binding(2) var<storage, read_write> y: array<To>;

@compute @workgroup_size(THREADS)
fn convert(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i < shape.n) { y[i] = To(x[i]); }
}
