// to[place of i] = from[place of i] for every i of up to six axes: permute, slice, concatenate, flip, repeat.
// Words are copied, so any dtype goes; V is f32 or vec4f for f16 ↔ f32 and for single halves. Strides and offsets count V.
const THREADS = 256u;
const PER_THREAD = 4u;
const RANK = 6u;           // axes in use, the last ones of six
alias V = vec4u;           // less where runs are no multiple of it, see copy.ts

struct Shape {
  n: u32, from_offset: u32, to_offset: u32, d1: u32, d2: u32, d3: u32, d4: u32, d5: u32,
  f0: i32, f1: i32, f2: i32, f3: i32, f4: i32, f5: i32, t0: i32, t1: i32, t2: i32, t3: i32, t4: i32, t5: i32,
}
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> source: array<V>;
@group(0) @binding(2) var<storage, read_write> destination: array<V>;

@compute @workgroup_size(THREADS)
fn copy(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let first = (group.x + group.y * groups.x) * THREADS * PER_THREAD + thread;
  let end = min(first + THREADS * PER_THREAD, shape.n);
  for (var id = first; id < end; id += THREADS) {
    var left = id;        // what is left counts along the outermost axis in use
    var at = vec2i(i32(shape.from_offset), i32(shape.to_offset));
    if (RANK > 1u) {
      at += i32(left % shape.d5) * vec2i(shape.f5, shape.t5);
      left /= shape.d5;
    }
    if (RANK > 2u) {
      at += i32(left % shape.d4) * vec2i(shape.f4, shape.t4);
      left /= shape.d4;
    }
    if (RANK > 3u) {
      at += i32(left % shape.d3) * vec2i(shape.f3, shape.t3);
      left /= shape.d3;
    }
    if (RANK > 4u) {
      at += i32(left % shape.d2) * vec2i(shape.f2, shape.t2);
      left /= shape.d2;
    }
    if (RANK > 5u) {
      at += i32(left % shape.d1) * vec2i(shape.f1, shape.t1);
      left /= shape.d1;
    }
    if (RANK == 6u) { at += i32(left) * vec2i(shape.f0, shape.t0); }
    if (RANK == 5u) { at += i32(left) * vec2i(shape.f1, shape.t1); }
    if (RANK == 4u) { at += i32(left) * vec2i(shape.f2, shape.t2); }
    if (RANK == 3u) { at += i32(left) * vec2i(shape.f3, shape.t3); }
    if (RANK == 2u) { at += i32(left) * vec2i(shape.f4, shape.t4); }
    if (RANK == 1u) { at += i32(left) * vec2i(shape.f5, shape.t5); }
    destination[at.y] = source[at.x];
  }
}
