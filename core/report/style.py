"""The looks of the page: one style sheet, light, dark and on paper; no font, picture or script from elsewhere."""

from __future__ import annotations

# Okabe and Ito's palette, which stays apart in every colour vision; its dark colours are lightened on dark ground.
_LIGHT = (
    "--ground:#fff;--raised:#f6f6f4;--line:#dedcd7;--ink:#1b1d20;--soft:#5c6066;"
    "--t0:#7c8087;--t1:#0072b2;--t2:#c45500;--t3:#00805c;--t4:#a3478a;--warn:#fdf1d8;--edge:#c98a00"
)
_DARK = (
    "--ground:#141619;--raised:#1c1f23;--line:#33373d;--ink:#eceae6;--soft:#a4a8ae;"
    "--t0:#8d9299;--t1:#5cb6ea;--t2:#f09048;--t3:#34c79c;--t4:#dd8fc4;--warn:#2d2614;--edge:#d9a52c"
)

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    f"@media print{{:root{{color-scheme:light;{_LIGHT}}}}}"
    """
*{box-sizing:border-box}
html{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  background:var(--ground);color:var(--ink);-webkit-text-size-adjust:100%}
@media (min-width:1600px){html{font-size:19px}}
body{margin:0}
main{max-width:88rem;margin:0 auto;padding:1.5rem clamp(1rem,3vw,3rem) 3rem}
h1,h2,h3,p,dl,dd,figure,ul{margin:0;padding:0}
h1{font-size:clamp(1.6rem,1.1rem + 2vw,2.5rem);line-height:1.15;letter-spacing:-.015em;overflow-wrap:anywhere}
h2,h3{overflow-wrap:anywhere}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 .2rem;letter-spacing:-.01em}
h3{font-size:1rem;line-height:1.3;margin:0 0 .35rem}
section{margin-top:3rem}
section>p{max-width:46rem}
.soft,.lead~p:not(.lead,.warning){color:var(--soft)}
.small{font-size:.9rem}
h3.apart{margin-top:1.8rem}.cards+.apart{margin-top:0}
h3 .soft{font-weight:400}
.kicker{color:var(--soft);font-size:.9rem;margin-bottom:.3rem}
.lead+.lead{margin-top:.1rem}
.lead{font-size:clamp(1.1rem,1rem + .5vw,1.4rem);line-height:1.4;margin-top:.7rem;max-width:62rem}
.note,.warning{max-width:52rem;overflow-wrap:anywhere}
.warning{background:var(--warn);border-left:4px solid var(--edge);padding:.5rem .8rem;margin-top:.8rem}
.tiles{display:flex;flex-wrap:wrap;gap:1px;margin-top:1.5rem;background:var(--line);border:1px solid var(--line)}
.tiles div{flex:1 1 9.5rem;background:var(--ground);padding:.7rem .9rem}
.tiles dt{color:var(--soft);font-size:.85rem}
.tiles dd{font-size:1.35rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles small{display:block;font-weight:400;font-size:.85rem;color:var(--soft)}
.cards{columns:20rem auto;column-gap:2.5rem;margin-top:1rem}
.cards>div{break-inside:avoid;padding-bottom:1.8rem}
.facts{display:grid;grid-template-columns:minmax(7.5rem,33%) minmax(0,1fr);font-size:.92rem}
.facts dt,.facts dd{padding:.28rem 0;border-top:1px solid var(--line)}
.facts dt{color:var(--soft);padding-right:1rem;overflow-wrap:anywhere}
.facts dd{overflow-wrap:anywhere;min-width:0}
pre{margin:.4rem 0 0;padding:.7rem .9rem;background:var(--raised);border:1px solid var(--line);overflow-x:auto;
  font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
  overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--t1)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1.6rem 2rem;
  margin-top:1rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;color:var(--soft);list-style:none}
.legend li::before{content:"";display:inline-block;width:1rem;height:0;border-top:3px solid var(--c);
  margin-right:.4rem;vertical-align:.25rem}
.legend li.dot::before{width:.6rem;height:.6rem;border:0;border-radius:50%;background:var(--c);vertical-align:0}
.legend li.faint::before{opacity:.4}
.chart{display:block;width:100%;height:auto;margin-top:.3rem}
svg text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg .grid{stroke:var(--line);stroke-width:1}
svg .axis{stroke:var(--soft);stroke-width:1}
svg path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .quiet{opacity:.32;stroke-width:1}
svg .hover{fill:transparent}
svg .hover:hover{fill:var(--ink);fill-opacity:.07}
svg .t0{stroke:var(--t0)}svg .t1{stroke:var(--t1)}svg .t2{stroke:var(--t2)}
svg .t3{stroke:var(--t3)}svg .t4{stroke:var(--t4)}
svg circle{stroke-width:1}
svg circle.t0{fill:var(--t0)}svg circle.t1{fill:var(--t1)}svg circle.t2{fill:var(--t2)}
svg circle.t3{fill:var(--t3)}svg circle.t4{fill:var(--t4)}
.panel{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:.9rem .8rem;margin-top:1.2rem}
.panel figure{break-inside:avoid}.panel+p{margin-top:1.6rem}p.small+.panel{margin-top:.5rem}p.soft+p.small{margin-top:1rem}
.panel img,.more img{display:block;width:100%;height:auto}
figcaption{font-size:.85rem;line-height:1.3;color:var(--soft);margin-bottom:.3rem}
@media (min-width:800px),print{.panel{grid-template-columns:repeat(var(--n),minmax(0,1fr));max-width:calc(var(--n)*17rem)}
  .panel+.panel{margin-top:1.2rem}.panel+.panel:not(.many) figcaption{display:none}.panel figure{align-self:end}}
.panel.many+.panel.many{padding-top:1.2rem;border-top:1px solid var(--line)}
.swatches{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;font-size:.85rem;color:var(--soft);margin:.6rem 0;max-width:none}
.swatches span::before{content:"";display:inline-block;width:1.4rem;height:1rem;margin-right:.4rem;
  vertical-align:-.15rem;outline:1px solid var(--line);outline-offset:-1px}
.swatches [style]::before{background:var(--c)}
.hidden::before{background:repeating-linear-gradient(-45deg,#707078 0 2px,#8e8e94 2px 6px)}
.tint::before{background:rgb(86,180,233)}
.nodata::before{
  background:radial-gradient(circle at 1px 1px,rgba(128,128,128,.6) 1px,rgba(128,128,128,.16) 1px) 0 0/5px 5px}
.coarse{image-rendering:pixelated}
.pictures img{outline:1px solid var(--line);outline-offset:-1px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:1rem;margin:.6rem 0 0;
  max-width:84rem}
.pictures img{display:block;width:100%;max-width:40rem;height:auto}
article+article{margin-top:2.6rem}
.covers{max-width:46rem;margin-top:.9rem}
.covers th,.covers td{padding:.28rem 1rem .28rem 0;border-top:1px solid var(--line);text-align:right}
.covers thead th,.covers thead td{color:var(--soft);border-top:0;font-size:.85rem}
.covers th[scope=row],.covers th:first-child{text-align:left;overflow-wrap:anywhere}
.covers tbody tr[style] th::before{content:"";display:inline-block;width:.9rem;height:.9rem;margin-right:.6rem;
  vertical-align:-.1rem;background:var(--c)}
.covers td{white-space:nowrap}.covers .bar{width:34%;padding-right:0}
@media (max-width:640px){.covers th,.covers td{padding-right:.6rem}.covers .bar{width:22%}
  .covers tbody tr[style] th::before{margin-right:.4rem}}
.covers .bar i{display:block;height:.8rem;background:var(--c);min-width:1px}
.more{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,16rem),1fr));gap:1rem;margin-top:1rem}
.scores{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,34rem),1fr));gap:2rem 3rem;margin-top:1.2rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;font-weight:400;padding:.15rem 0;vertical-align:middle}
section>table th,section>table td{padding-right:.8rem}
.scores tbody td,.scores tbody .name{border-top:1px solid var(--line)}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.scores th[colspan]{color:var(--soft);font-size:.85rem;padding-top:.7rem}
.scores .name{width:34%;padding-right:.8rem;overflow-wrap:anywhere;line-height:1.25}
.scores .value{width:11.5rem;padding-left:.8rem;text-align:right;white-space:nowrap}
.scores .value b{font-weight:600}
.scores .first{font-weight:600}
.whisker{display:block;width:100%;height:1.9rem;overflow:visible}
.whisker line{stroke-width:2.5}
.whisker .mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.scale{display:block;width:100%;height:16px;overflow:visible}
@media (max-width:640px){.scores tr{display:grid;grid-template-columns:1fr auto}.scores tbody td{border:0}
  .scores .name,.scores .value{width:auto;padding-top:.35rem;border-top:1px solid var(--line)}
  .scores .plot{grid-column:1/-1;grid-row:2;padding:0 .4rem}.scores tfoot .name,.scores tfoot .value{display:none}
  .whisker{height:1.3rem}}
.how{margin-top:.8rem}
.how li{margin:.5rem 0 0 1.1rem;max-width:46rem}
footer{margin-top:3rem;padding-top:.8rem;border-top:1px solid var(--line);color:var(--soft);font-size:.85rem;
  overflow-wrap:anywhere}
@media print{main{padding:0;max-width:none}section{margin-top:1.5rem}.charts figure,.cards>div,.panel,.scores>div{
  break-inside:avoid}h2,h3,section>p{break-after:avoid}html{font-size:11pt}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
)
