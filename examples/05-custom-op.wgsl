// y = x · r,  r = 1 / √(mean(x²) + eps)  over the last axis.    x, y, dy, dx: [rows, cols]   rstd: [rows], holds r
// One workgroup per row: each thread strides along the row, then the workgroup adds up.
const THREADS = 64u;

struct Shape { rows: u32, cols: u32, eps: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>; // the order of `arrays` in gpu.run()
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

// The sum of `mine` over the workgroup, the same for all of it. A tree in fixed order, so that the bits repeat.
fn row_sum(thread: u32, mine: f32) -> f32 {
  partial[thread] = mine;
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (thread < step) { partial[thread] += partial[thread + step]; }
  }
  workgroupBarrier();
  return partial[0];
}

@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; } // a large grid is folded, and overhangs
  let first = row * shape.cols + thread;
  let end = (row + 1u) * shape.cols;
  var squares = 0.0;
  for (var i = first; i < end; i += THREADS) { squares += x[i] * x[i]; }
  let r = inverseSqrt(row_sum(thread, squares) / f32(shape.cols) + shape.eps);
  for (var i = first; i < end; i += THREADS) { y[i] = x[i] * r; }
  if (thread == 0u) { rstd[row] = r; }
}

// dx = r · (dy − y · mean(dy · y))
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> y_in: array<f32>;
@group(0) @binding(3) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= shape.rows) { return; }
  let first = row * shape.cols + thread;
  let end = (row + 1u) * shape.cols;
  var dots = 0.0;
  for (var i = first; i < end; i += THREADS) { dots += dy[i] * y_in[i]; }
  let mean = row_sum(thread, dots) / f32(shape.cols);
  for (var i = first; i < end; i += THREADS) { dx[i] = rstd_in[row] * (dy[i] - y_in[i] * mean); }
}
