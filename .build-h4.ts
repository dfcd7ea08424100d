import { Gpu } from './src/kernels/index.ts';
import { groupNorm } from './src/kernels/group-norm.ts';
import { layerNorm } from './src/kernels/layer-norm.ts';
import * as U from './src/kernels/unary.ts';
import * as B from './src/kernels/binary.ts';
import * as R from './src/kernels/reduce.ts';
const gpu = await Gpu.create();
const rnd = (shape: number[]) => gpu.array(shape, Float32Array.from({length: shape.reduce((a,b)=>a*b,1)}, () => Math.random()*2-1));
async function bench(name: string, fn: () => any[]) {
  const cpus: number[] = []; const go = async (n: number) => { const c0 = process.cpuUsage(); const t=performance.now(); for (let i=0;i<n;i++) for (const a of fn()) a?.dispose(); await gpu.idle(); const c = process.cpuUsage(c0); cpus.push((c.user+c.system)/1000/n); return (performance.now()-t)/n; };
  await go(2);
  const d0 = gpu.dispatches; fn().forEach((a:any)=>a?.dispose()); const d = gpu.dispatches-d0;
  const one = await go(3); const n = Math.max(3, Math.min(50, Math.round(60/one)));
  const ts=[]; for (let i=0;i<5;i++) ts.push(await go(n)); ts.sort((a,b)=>a-b);
  console.log(name.padEnd(50), ts[2].toFixed(3), 'ms', 'min', ts[0].toFixed(3), 'cpu', Math.min(...cpus.slice(-5)).toFixed(3), `${d} dispatches`);
}
const f = (op: any, ins: any[], attrs: any) => () => { const r = op.forward(gpu, ins, attrs); return [r.output, ...(r.saved??[]).filter((s: any)=>!ins.includes(s) && s!==r.output)]; };
const fb = (op: any, ins: any[], attrs: any, dy?: any) => { const r = op.forward(gpu, ins, attrs); dy ??= rnd(r.output.shape); return () => op.backward(gpu, dy, r.saved ?? [], attrs, ins.map(()=>true)); };
const filter = process.argv[2] ?? '';
const cases: [string, () => () => any[]][] = [];
const gn = (shape: number[], groups: number) => { const C = shape.at(-1)!; const ins=[rnd(shape), rnd([C]), rnd([C])]; const a={groups, eps:1e-5, silu:true};
  cases.push([`gn+silu ${shape} fwd`, ()=>f(groupNorm, ins, a)], [`gn+silu ${shape} bwd`, ()=>fb(groupNorm, ins, a)]); };
gn([1,64,64,320],32); gn([32,8,8,64],8); gn([32,16,16,32],8); gn([4,16,16,32],8); gn([1,128,128,128],32);
const ln = (shape: number[]) => { const C = shape.at(-1)!; const ins=[rnd(shape), rnd([C]), rnd([C])]; const a={eps:1e-5};
  cases.push([`ln ${shape} fwd`, ()=>f(layerNorm, ins, a)], [`ln ${shape} bwd`, ()=>fb(layerNorm, ins, a)]); };
ln([4096,320]); ln([32,64,64]); ln([32,32,128]);
const x16 = () => rnd([4,1024,1024]);
cases.push(['silu 4M', ()=>f(U.silu,[x16()],{})], ['gelu 4M', ()=>f(U.gelu,[x16()],{})], ['silu bwd 4M', ()=>fb(U.silu,[x16()],{})], ['mulScalar 4M', ()=>f(U.mulScalar,[x16()],{s:2})], ['add 4M', ()=>f(B.add,[x16(),x16()],{})], ['add 4M + [1024]', ()=>f(B.add,[x16(),rnd([1024])],{})], ['add 4M [4,1024,1024]+[4,1,1024]', ()=>f(B.add,[x16(),rnd([4,1,1024])],{})],
 ['silu [32,8,8,64]', ()=>f(U.silu,[rnd([32,8,8,64])],{})],
 ['sum [131072,64]->[64]', ()=>f(R.sum,[rnd([131072,64])],{axes:[0]})], ['sum [4096,1024] rows', ()=>f(R.sum,[rnd([4096,1024])],{axes:[1]})], ['sum all 4M', ()=>f(R.sum,[x16()],{})],['sum [32,8,8,64]->[32,64]', ()=>f(R.sum,[rnd([32,8,8,64])],{axes:[1,2]})]);
import * as S from './src/kernels/shape.ts'; import * as L from './src/kernels/loss.ts'; import { softmax } from './src/kernels/softmax.ts'; import { embedding } from './src/kernels/embedding.ts';
cases.push(['x concat [32,16,16,32|64]', ()=>f(S.concat,[rnd([32,16,16,32]),rnd([32,16,16,64])],{axis:-1})],['x concat bwd', ()=>fb(S.concat,[rnd([32,16,16,32]),rnd([32,16,16,64])],{axis:-1})],
['x permute 4M 0213', ()=>f(S.permute,[rnd([4,1024,8,128])],{axes:[0,2,1,3]})],['x permute 4M 021', ()=>f(S.permute,[rnd([4,1024,1024])],{axes:[0,2,1]})],
['x mse [32,16,16,4]', ()=>f(L.mse,[rnd([32,16,16,4]),rnd([32,16,16,4])],{reduction:'mean'})],['x mse bwd', ()=>fb(L.mse,[rnd([32,16,16,4]),rnd([32,16,16,4])],{reduction:'mean'})],
['x softmax 8x1024x1024', ()=>f(softmax,[rnd([8,1024,1024])],{axis:-1})],['x softmax bwd', ()=>fb(softmax,[rnd([8,1024,1024])],{axis:-1})],
['x embedding 32x16 of 4000x128', ()=>{ const ids=gpu.array([32,16], Int32Array.from({length:512},(_, i)=>i%16>6?0:(i*37)%4000), 'i32'); return f(embedding,[rnd([4000,128]), ids],{})}],
['x embedding bwd', ()=>{ const ids=gpu.array([32,16], Int32Array.from({length:512},(_, i)=>i%16>6?0:(i*37)%4000), 'i32'); return fb(embedding,[rnd([4000,128]), ids],{})}]);
for (const [name, make] of cases) if (name.includes(filter)) await bench(name, make());
process.exit(0);
