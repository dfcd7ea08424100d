/** Of the report: follows the reader's light or dark setting. Lines have Okabe and Ito's colours. */
export const style = `
:root { color-scheme: light dark; --paper: #fff; --card: #f6f8fa; --text: #1f2328; --muted: #59636e; --line: #d1d9e0;
  --grid: #e4e8ec; --line0: #0072b2; --line1: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --card: #161b22; --text: #e6edf3; --muted: #9198a1;
  --line: #3d444d; --grid: #262c34; --line0: #58b0e8; --line1: #f0883e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--paper); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 8px; }
p { margin: 4px 0; } .muted { color: var(--muted); }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 14px 0 0; }
nav a { border: 1px solid var(--line); border-radius: 6px; padding: 2px 10px; color: var(--text); text-decoration: none; }
nav a:hover { border-color: var(--line0); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; margin: 12px 0; }
.chart { margin: 0; padding: 10px 12px 4px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.chart.wide { grid-column: 1 / -1; }
figcaption { display: flex; flex-wrap: wrap; column-gap: 12px; font-size: 14px; }
figcaption i { font-style: normal; } figcaption i.line0 { color: var(--line0); } figcaption i.line1 { color: var(--line1); }
output { margin-left: auto; color: var(--muted); font-variant-numeric: tabular-nums; }
figure > svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--muted); }
svg path, svg circle { fill: none; } .grid { stroke: var(--grid); } .axis, .cross { stroke: var(--muted); }
.curve { stroke-width: 1.8; } .pale { stroke-opacity: 0.28; } path.line0 { stroke: var(--line0); } path.line1 { stroke: var(--line1); }
circle.line0 { fill: var(--line0); } circle.line1 { fill: var(--line1); }
.sheet { overflow-x: auto; } .sheet img { max-width: 100%; border: 1px solid var(--line); border-radius: 8px; background: #fff; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .words td, .words th { text-align: left; } .words td { white-space: normal; min-width: 90px; } th { color: var(--muted); font-weight: 600; }
summary { cursor: pointer; } pre { overflow: auto; padding: 12px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; font-size: 13px; }
`;
