// y = h · gelu(g), where a row of z is h and then g.   z, dz: [rows, 2·size]   y, dy: [rows, size]
// gelu(g) = g·Φ(g), Φ the normal distribution.   dh = dy · g·Φ(g)   dg = dy · h · (Φ(g) + g·Φ'(g))
// One workgroup per row.
const THREADS = 64u;
struct Shape { rows: u32, size: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dz: array<f32>;

// Press et al. 1992, Numerical Recipes, §6.2 (erfcc): relative error below 1.2e-7 everywhere.
fn erfc(x: f32) -> f32 {
  let z = min(abs(x), 9.0);
  let t = 1.0 / (1.0 + 0.5 * z);
  let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 +
          t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  let e = t * exp(-z * z) * exp(p);
  return select(2.0 - e, e, x >= 0.0);
}
fn normal_below(x: f32) -> f32 { return 0.5 * erfc(-0.7071067812 * x); }

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; }
  let size = shape.size;
  let h = row * 2u * size;
  for (var i = thread; i < size; i += THREADS) {
    let g = z[h + size + i];
    y[row * size + i] = z[h + i] * g * normal_below(g);
  }
}

@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; }
  let size = shape.size;
  let h = row * 2u * size;
  for (var i = thread; i < size; i += THREADS) {
    let g = z[h + size + i];
    let d = dy[row * size + i];
    let below = normal_below(g);
    dz[h + i] = d * g * below;
    dz[h + size + i] = d * z[h + i] * (below + g * 0.3989422804 * exp(-0.5 * g * g));
  }
}
