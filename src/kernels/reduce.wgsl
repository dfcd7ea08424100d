// y = scale · Σ f(a, b; s) over the middle axis, or the largest or smallest.
// a, b: [outer, length, inner]   y: [outer, inner]
// Long axes go in chunks: y is then [outer, chunks, inner], and a second run over the chunks finishes.
const TEAM = 1u;           // threads that share a row
const ROWS = 64u;          // rows of a workgroup
const THREADS = TEAM * ROWS;
const ARITY = 2u;          // operands in use
const COMBINE = 0u;        // 0 sum, 1 largest, 2 smallest
alias V = vec4f;           // f32 where the last axis is no multiple of 4; sizes count V
alias U = vec4u;           // the bits of a V

struct Shape { outer: u32, length: u32, inner: u32, chunks: u32, chunk: u32, scale: f32, s: f32, start: f32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> a: array<V>;
@group(0) @binding(2) var<storage, read> b: array<V>;
@group(0) @binding(3) var<storage, read_write> totals: array<V>;
@group(0) @binding(4) var<storage, read_write> row_totals: array<f32>;

var<workgroup> shared_values: array<f32, THREADS>;

fn f(a: V, b: V, s: f32) -> V { return a; }

// The larger, or NaN where one is: max() may take the other one, and x != x may be taken for false. Bits do not lie.
fn larger(p: V, q: V) -> V {
  let m = select(max(p, q), q, (bitcast<U>(q) & U(0x7fffffffu)) > U(0x7f800000u));
  return select(m, p, (bitcast<U>(p) & U(0x7fffffffu)) > U(0x7f800000u));
}

fn larger1(p: f32, q: f32) -> f32 {
  let m = select(max(p, q), q, (bitcast<u32>(q) & 0x7fffffffu) > 0x7f800000u);
  return select(m, p, (bitcast<u32>(p) & 0x7fffffffu) > 0x7f800000u);
}

fn combine(p: V, q: V) -> V {
  if (COMBINE == 1u) { return larger(p, q); }
  if (COMBINE == 2u) { return -larger(-p, -q); }
  return p + q;
}

fn combine1(p: f32, q: f32) -> f32 {
  if (COMBINE == 1u) { return larger1(p, q); }
  if (COMBINE == 2u) { return -larger1(-p, -q); }
  return p + q;
}

fn across(v: V) -> f32 { return combine1(combine1(v.x, v.y), combine1(v.z, v.w)); }

fn value(i: u32) -> V {
  var second = V();
  if (ARITY > 1u) { second = b[i]; }
  return f(a[i], second, shape.s);
}

// One thread for each (outer, chunk, inner).
@compute @workgroup_size(THREADS)
fn columns(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.chunks * shape.inner) { return; }
  let block = id / shape.inner;
  let column = id - block * shape.inner;
  let outer = block / shape.chunks;
  let first = (block - outer * shape.chunks) * shape.chunk;
  let count = min(shape.chunk, shape.length - min(first, shape.length));
  var i = (outer * shape.length + first) * shape.inner + column;
  var total = V(shape.start);
  for (var k = 0u; k < count; k++) {
    total = combine(total, value(i));
    i += shape.inner;
  }
  totals[id] = total * shape.scale;
}

// inner = 1: a team of threads for each (outer, chunk).
@compute @workgroup_size(THREADS)
fn rows(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * ROWS + thread / TEAM;
  let member = thread % TEAM;
  let exists = id < shape.outer * shape.chunks;
  let outer = id / shape.chunks;
  let first = (id - outer * shape.chunks) * shape.chunk;
  let end = select(0u, min(first + shape.chunk, shape.length), exists);
  var total = V(shape.start);
  for (var k = first + member; k < end; k += TEAM) { total = combine(total, value(outer * shape.length + k)); }
  var sum = across(total);
  if (TEAM > 1u) {
    shared_values[thread] = sum;
    for (var step = TEAM / 2u; step > 0u; step /= 2u) {
      workgroupBarrier();
      if (member < step) { shared_values[thread] = combine1(shared_values[thread], shared_values[thread + step]); }
    }
    sum = shared_values[thread];
  }
  if (exists && member == 0u) { row_totals[id] = sum * shape.scale; }
}

// The place of the first largest number along the axis, or of the first NaN.    index: [outer, inner]
@group(0) @binding(1) var<storage, read> numbers: array<f32>;
@group(0) @binding(4) var<storage, read_write> index: array<i32>;
@compute @workgroup_size(THREADS)
fn argmax(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) thread: u32) {
  let id = (group.x + group.y * groups.x) * THREADS + thread;
  if (id >= shape.outer * shape.inner) { return; }
  let outer = id / shape.inner;
  var i = outer * shape.length * shape.inner + (id - outer * shape.inner);
  var best = numbers[i];
  var at = 0u;
  for (var k = 1u; k < shape.length; k++) {
    i += shape.inner;
    let better = numbers[i] > best || (bitcast<u32>(numbers[i]) & 0x7fffffffu) > 0x7f800000u;
    if (better && (bitcast<u32>(best) & 0x7fffffffu) <= 0x7f800000u) { best = numbers[i]; at = k; }
  }
  index[id] = i32(at);
}
