// y[n] = table[ids[n]].    table: [rows, width]   ids: i32 [count]   y: [count, width]
// Backward needs no atomics: each place knows the next one with its id, and the first of a chain adds it up in order.
const THREADS = 64u;
const PARTS = false;       // this table is rows `first`, `first` + 1, … of a larger one; ids of the other rows are not its concern
alias V = vec4f;           // f32 where the width is no multiple of 4; `width` counts V
struct Shape { count: u32, width: u32, rows: u32, first: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> ids: array<i32>;
@group(0) @binding(2) var<storage, read> source: array<V>;
@group(0) @binding(3) var<storage, read_write> destination: array<V>;

// Ids outside the table give NaN, hidden from the compiler: zeros would look like a row.
@compute @workgroup_size(THREADS)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= shape.count * shape.width) { return; }
  let n = i / shape.width;
  let id = u32(ids[n]) - shape.first;
  if (PARTS && id >= shape.rows) { return; }
  let row = min(id, shape.rows - 1u);
  let value = source[row * shape.width + i - n * shape.width];
  let nan = bitcast<f32>(select(0x7fc00000u, 0u, id == row));
  destination[i] = select(V(nan), value, V(f32(id)) == V(f32(row)));
}

// chain[n] = the next place with the id of n, `count` at the end; chain[count + n] = 1 where n is the first such place.
@group(0) @binding(3) var<storage, read_write> chain: array<u32>;
@compute @workgroup_size(THREADS)
fn link(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) thread: u32) {
  let n = (group.x + group.y * groups.x) * THREADS + thread;
  if (n >= shape.count) { return; }
  let id = ids[n];
  var first = u32(id) < shape.rows;
  for (var m = 0u; m < n && first; m++) { first = ids[m] != id; }
  var next = n + 1u;
  while (next < shape.count && ids[next] != id) { next++; }
  chain[n] = next;
  chain[shape.count + n] = select(0u, 1u, first);
}

// The rows that occur; `destination` holds zeros before.
@group(0) @binding(4) var<storage, read> chain_in: array<u32>;
@compute @workgroup_size(THREADS)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
            @builtin(local_invocation_index) thread: u32) {
  let i = (group.x + group.y * groups.x) * THREADS + thread;
  if (i >= shape.count * shape.width) { return; }
  var n = i / shape.width;
  if (chain_in[shape.count + n] == 0u) { return; }
  let column = i - n * shape.width;
  let row = u32(ids[n]) - shape.first;
  if (row >= shape.rows) { return; }
  var sum = V(0.0);
  while (n < shape.count) {
    sum += source[n * shape.width + column];
    n = chain_in[n];
  }
  destination[row * shape.width + column] = sum;
}
