// y[o, part, c] = Σ x[o, i, c] over the i of that part, in order.    x: [outer, n, cols]   y: [outer, parts, cols]
const THREADS = 64u;
struct Shape { outer: u32, n: u32, cols: u32, parts: u32, chunk: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn sums(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= s.outer * s.parts * s.cols) { return; }
  let c = i % s.cols;
  let part = i / s.cols % s.parts;
  let o = i / s.cols / s.parts;
  var sum = 0.0;
  for (var j = part * s.chunk; j < min((part + 1u) * s.chunk, s.n); j++) { sum += x[(o * s.n + j) * s.cols + c]; }
  y[i] = sum;
}
