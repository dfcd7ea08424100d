// Pooling [B, H, W, C] → [B, outH, outW, C]: average and largest of a kernel × kernel window. One thread per element made.
const THREADS = 64u;
struct Shape {
  size: u32, height: u32, width: u32, outHeight: u32, outWidth: u32, channels: u32,
  kernel: u32, stride: u32, padding: u32,
}
@group(0) @binding(0) var<uniform> s: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;              // forward: x; backward: dy
@group(0) @binding(2) var<storage, read_write> y: array<f32>;        // forward: y; backward: dx
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;   // pixel of the largest: [B, outH, outW, C]
@group(0) @binding(4) var<storage, read> winners: array<u32>;        // `chosen`, read back

// y = Σ x / kernel²: padding counts as zeros.
@compute @workgroup_size(THREADS)
fn average(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let left = i32(e / s.channels % s.outWidth * s.stride) - i32(s.padding);
  let top = i32(e / s.channels / s.outWidth % s.outHeight * s.stride) - i32(s.padding);
  let b = e / s.channels / s.outWidth / s.outHeight;
  var sum = 0.0;
  for (var i = max(top, 0); i < min(top + i32(s.kernel), i32(s.height)); i++) {
    for (var j = max(left, 0); j < min(left + i32(s.kernel), i32(s.width)); j++) {
      sum += x[((b * s.height + u32(i)) * s.width + u32(j)) * s.channels + c];
    }
  }
  y[e] = sum / f32(s.kernel * s.kernel);
}

// dx = Σ dy / kernel² over the windows that hold a pixel
@compute @workgroup_size(THREADS)
fn average_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let cols = windows(e / s.channels % s.width, s.outWidth);
  let rows = windows(e / s.channels / s.width % s.height, s.outHeight);
  let b = e / s.channels / s.width / s.height;
  var sum = 0.0;
  for (var i = rows.x; i < rows.y; i++) {
    for (var j = cols.x; j < cols.y; j++) { sum += x[((b * s.outHeight + i) * s.outWidth + j) * s.channels + c]; }
  }
  y[e] = sum / f32(s.kernel * s.kernel);
}

// y = the largest of the window, or NaN where it holds one; of equals, the first
@compute @workgroup_size(THREADS)
fn largest(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let left = i32(e / s.channels % s.outWidth * s.stride) - i32(s.padding);
  let top = i32(e / s.channels / s.outWidth % s.outHeight * s.stride) - i32(s.padding);
  let b = e / s.channels / s.outWidth / s.outHeight;
  var pixel = u32(max(top, 0)) * s.width + u32(max(left, 0));
  var best = x[(b * s.height * s.width + pixel) * s.channels + c];
  for (var i = max(top, 0); i < min(top + i32(s.kernel), i32(s.height)); i++) {
    for (var j = max(left, 0); j < min(left + i32(s.kernel), i32(s.width)); j++) {
      let p = u32(i) * s.width + u32(j);
      let v = x[(b * s.height * s.width + p) * s.channels + c];
      if (!is_nan(best) && (v > best || is_nan(v))) {
        best = v;
        pixel = p;
      }
    }
  }
  y[e] = best;
  chosen[e] = pixel;
}

// dx = Σ dy over the windows that chose a pixel
@compute @workgroup_size(THREADS)
fn largest_backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                    @builtin(local_invocation_index) thread: u32) {
  let e = (group.x + group.y * groups.x) * THREADS + thread;
  if (e >= s.size) { return; }
  let c = e % s.channels;
  let pixel = e / s.channels % (s.width * s.height);
  let cols = windows(pixel % s.width, s.outWidth);
  let rows = windows(pixel / s.width, s.outHeight);
  let b = e / s.channels / s.width / s.height;
  var sum = 0.0;
  for (var i = rows.x; i < rows.y; i++) {
    for (var j = cols.x; j < cols.y; j++) {
      let at = ((b * s.outHeight + i) * s.outWidth + j) * s.channels + c;
      if (winners[at] == pixel) { sum += x[at]; }
    }
  }
  y[e] = sum;
}

// Comparisons may assume that there is no NaN; bits do not lie.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

// The windows along one axis that hold pixel i: [from, below).
fn windows(i: u32, out: u32) -> vec2u {
  let p = i + s.padding;
  let start = select(0u, (p - s.kernel) / s.stride + 1u, p >= s.kernel);
  return vec2u(start, min(p / s.stride + 1u, out));
}
