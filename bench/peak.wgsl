// Multiply-adds on registers alone: the most arithmetic that compiled WGSL gets out of an adapter.
// Eight independent chains of four lanes for each thread, so that none waits for its own last result.
const THREADS = 64u;
struct Shape { rounds: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;     // [THREADS · workgroups]

@compute @workgroup_size(THREADS)
fn multiply_add(@builtin(global_invocation_id) id: vec3u) {
  let a = vec4f(0.999) + vec4f(f32(id.x) * 1e-9);
  let b = vec4f(1e-3);
  var c0 = b; var c1 = b * 2.0; var c2 = b * 3.0; var c3 = b * 4.0;
  var c4 = b * 5.0; var c5 = b * 6.0; var c6 = b * 7.0; var c7 = b * 8.0;
  for (var i = 0u; i < shape.rounds; i++) {
    c0 = fma(c0, a, b); c1 = fma(c1, a, b); c2 = fma(c2, a, b); c3 = fma(c3, a, b);
    c4 = fma(c4, a, b); c5 = fma(c5, a, b); c6 = fma(c6, a, b); c7 = fma(c7, a, b);
  }
  let sum = (c0 + c1) + (c2 + c3) + (c4 + c5) + (c6 + c7);
  y[id.x] = sum.x + sum.y + sum.z + sum.w;
}

// Nothing: what a dispatch costs by itself.
@compute @workgroup_size(1)
fn empty() {
  if (shape.rounds > 0u) { y[0] = 0.0; }
}
