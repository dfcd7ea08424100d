// Resizing [B, H, W, C] → [B, outH, outW, C]: nearest and bilinear. One thread per element of what is made.
const THREADS = 64u;
const ALIGN_CORNERS = false;
struct Shape { size: u32, height: u32, width: u32, outHeight: u32, outWidth: u32, channels: u32 }
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;             // forward: x; backward: dy
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // forward: y; backward: dx

fn at(b: u32, i: u32, j: u32, c: u32, height: u32, width: u32) -> f32 {
  return x[((b * height + i) * width + j) * s.channels + c];
}

// nearest: y[o] = x[⌊o · n / out⌋]
@compute @workgroup_size(THREADS)
fn nearest(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let j = e / s.channels % s.outWidth;
  let i = e / s.channels / s.outWidth % s.outHeight;
  let b = e / s.channels / s.outWidth / s.outHeight;
  y[e] = at(b, i * s.height / s.outHeight, j * s.width / s.outWidth, c, s.height, s.width);
}

// dx[i] = Σ dy[o] over the o with ⌊o · n / out⌋ = i, which begin at ⌈i · out / n⌉
@compute @workgroup_size(THREADS)
fn nearest_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let j = e / s.channels % s.width;
  let i = e / s.channels / s.width % s.height;
  let b = e / s.channels / s.width / s.height;
  var sum = 0.0;
  for (var oy = first(i, s.height, s.outHeight); oy < first(i + 1u, s.height, s.outHeight); oy++) {
    for (var ox = first(j, s.width, s.outWidth); ox < first(j + 1u, s.width, s.outWidth); ox++) {
      sum += at(b, oy, ox, c, s.outHeight, s.outWidth);
    }
  }
  y[e] = sum;
}

fn first(i: u32, n: u32, out: u32) -> u32 { return (i * out + n - 1u) / n; }

// Where output o lies between the samples of an axis of n.
fn position(o: u32, n: u32, out: u32) -> f32 {
  if (ALIGN_CORNERS) { return f32(o) * f32(n - 1u) / f32(max(out, 2u) - 1u); }
  return max(0.0, (f32(o) + 0.5) * f32(n) / f32(out) - 0.5);
}

@compute @workgroup_size(THREADS)
fn bilinear(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let v = position(e / s.channels / s.outWidth % s.outHeight, s.height, s.outHeight);
  let u = position(e / s.channels % s.outWidth, s.width, s.outWidth);
  let b = e / s.channels / s.outWidth / s.outHeight;
  let i0 = u32(v);
  let j0 = u32(u);
  let i1 = min(i0 + 1u, s.height - 1u);
  let j1 = min(j0 + 1u, s.width - 1u);
  let upper = mix(at(b, i0, j0, c, s.height, s.width), at(b, i0, j1, c, s.height, s.width), u - f32(j0));
  let lower = mix(at(b, i1, j0, c, s.height, s.width), at(b, i1, j1, c, s.height, s.width), u - f32(j0));
  y[e] = mix(upper, lower, v - f32(i0));
}

// dx[i, j] = Σ dy[o, p] · share(o, i) · share(p, j)
@compute @workgroup_size(THREADS)
fn bilinear_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                     @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let j = e / s.channels % s.width;
  let i = e / s.channels / s.width % s.height;
  let b = e / s.channels / s.width / s.height;
  let rows = reach(i, s.height, s.outHeight);
  let cols = reach(j, s.width, s.outWidth);
  var sum = 0.0;
  for (var oy = rows.x; oy < rows.y; oy++) {
    let v = share(oy, i, s.height, s.outHeight);
    for (var ox = cols.x; v > 0.0 && ox < cols.y; ox++) {
      let u = share(ox, j, s.width, s.outWidth);
      if (u > 0.0) { sum += v * u * at(b, oy, ox, c, s.outHeight, s.outWidth); }
    }
  }
  y[e] = sum;
}

// How much of sample i there is in output o.
fn share(o: u32, i: u32, n: u32, out: u32) -> f32 {
  let p = position(o, n, out);
  let i0 = u32(p);
  return select(0.0, 1.0 - (p - f32(i0)), i == i0) + select(0.0, p - f32(i0), i == min(i0 + 1u, n - 1u));
}

// Outputs that may hold a share of sample i: [from, below).
fn reach(i: u32, n: u32, out: u32) -> vec2u {
  let scale = f32(out) / f32(n);
  let start = select(u32(max(0.0, (f32(i) - 1.0) * scale - 1.0)), 0u, i == 0u);
  let below = select(min(out, u32((f32(i) + 2.0) * scale + 2.0)), out, i + 1u == n);
  return select(vec2u(start, below), vec2u(0u, out), ALIGN_CORNERS && n <= 2u);
}
