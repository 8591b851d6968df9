// The figure of the page "The idea" that can be moved: networks while they learn, from results/film.json by way of film-data.js.
// It takes the place of the picture that is there without scripts.
(() => {
  const still = document.querySelector('[alt^="A scatter plot of view strengths"], [aria-label^="A scatter plot of view strengths"]');
  if (!still || !window.film) return;

  const size = 320, left = 48, low = 268, long = 250, full = 36;  // of a picture, its origin, its axes; the largest strength shown
  const style = `
    .film { --one: #0072b2; --all: #b36b00; --line: #5c636a; max-width: 680px; margin: 0 auto; text-align: left; }
    .quarto-dark .film { --one: #56b4e9; --all: #f0b030; --line: #adb5bd; }
    .film svg { flex: 1 1 250px; max-width: 330px; height: auto; color: inherit; background: none; }
    .film text { fill: currentColor; font-size: 15px; }
    .film .axes { stroke: var(--line); fill: none; }
    .film path.coins { stroke: var(--line); fill: none; stroke-width: 2; stroke-dasharray: 6 4; }
    .film g.one { fill: var(--one); fill-opacity: .4; }
    .film g.all { fill: var(--all); }
    .film .panels { display: flex; flex-wrap: wrap; justify-content: center; gap: .5rem 1.2rem; }
    .film .row { display: flex; align-items: center; gap: .5rem; min-height: 44px; }
    .film .row > span { width: 4.9rem; }
    .film input { flex: 1; min-width: 4rem; max-width: 16rem; height: 32px; accent-color: var(--one); }
    .film output { width: 4.7rem; white-space: nowrap; }
    .film :is(button, select) { font: inherit; color: inherit; background: transparent; min-width: 40px; min-height: 40px;
      border: 1px solid var(--line); border-radius: 6px; }
    .film option { color: #212529; background: #fff; }
    .film .key { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .5rem 0; font-size: .9rem; }
    .film .key span { display: inline-flex; align-items: center; gap: .4rem; }
    .film .key i { width: .7rem; height: .7rem; border-radius: 50%; }
    .film i.one { background: var(--one); opacity: .5; }
    .film i.all { background: var(--all); }
    .film .key i.coins { width: 1.4rem; height: 0; border-radius: 0; border-top: 2px dashed var(--line); }`;

  const at = (K, error) => [left + long/10*(K + .5), low - long*error];
  const dot = ([x, y], r) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}"/>`;
  const share = o => long*Math.min(o, full)/full;
  const dots = pairs => pairs.map(([a, b]) => dot([left + share(a), low - share(b)], 5)).join('');
  const pairs = v => Array.from({ length: v.length/2 }, (_, i) => [v[2*i], v[2*i+1]]);
  const text = (x, y, words, anchor = 'middle') => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
  const percent = x => `${(100*x).toFixed(x < .01 ? 2 : 1)} %`;

  // --- what is there once
  const picture = (label, across, up, inside) => `<svg viewBox="0 0 ${size} ${size}" role="img" aria-label="${label}">
    <path class="axes" d="M${left} 12 V${low} H308"/>${text(178, 308, across)}
    <text transform="translate(16 140) rotate(-90)" text-anchor="middle">${up}</text>${inside}</svg>`;
  const slider = (name, words, last, value) => `<div class="row"><span>${words}</span>
    <button type="button" data-role="${name}-less" aria-label="${words}: one less">−</button>
    <input type="range" data-role="${name}" min="${name === 'K' ? 1 : 0}" max="${last}" value="${value}" aria-label="${words}">
    <button type="button" data-role="${name}-more" aria-label="${words}: one more">+</button>
    <output data-role="${name}-out"></output></div>`;
  const seeds = film.map((o, i) => `<option value="${i}">${o.seed}</option>`).join('');
  const last = film[0].step.length - 1;
  const ticks = [1, 2, 3, 5, 10].map(K => text(at(K-1, 0)[0], low + 18, K)).join('')
    + [0, 50, 100].map(o => text(left - 6, at(0, o/100)[1] + 5, o, 'end')).join('');
  const coins = 'M' + Array.from({ length: 10 }, (_, i) => at(i, 2**-(i+1)).join(' ')).join(' L');
  const root = document.createElement('div');
  root.className = 'film';
  root.innerHTML = `<style>${style}</style>
    <div role="group" aria-label="What to show">${slider('time', 'training', last, last)}${slider('K', 'networks', 10, 3)}
    <label class="row"><span>seed</span><select data-role="seed">${seeds}</select></label></div>
    <p class="key"><span><i class="one"></i>a class in one network</span><span><i class="all"></i>in the ensemble: the class,
    and its error</span><span><i class="coins"></i>tossed coins: 2<sup>−K</sup></span></p>
    <div class="panels">${picture('Strength of the two views of each class', 'strength of view 1', 'strength of view 2',
      '<g class="one" data-role="dots"></g><g class="all" data-role="mean"></g>')}
    ${picture('Error against the number of networks', 'networks K', 'error on single-view data (%)',
      `${ticks}<path class="coins" d="${coins}"/><g class="all" data-role="errors"></g>`)}</div>
    <p aria-live="polite" data-role="says"></p>`;
  still.replaceWith(root);

  // --- what moves
  const $ = name => root.querySelector(`[data-role="${name}"]`);
  function draw() {
    const o = film[$('seed').value], K = +$('K').value, end = o.step.length - 1;
    const t = Math.min($('time').value, end), error = o.error[t], members = pairs(o.strength[t].slice(0, 20*K));
    const mean = Array.from({ length: 10 }, (_, i) => [0, 1].map(v =>
      members.reduce((sum, pair, j) => sum + (j % 10 === i ? pair[v]/K : 0), 0)));
    $('time').max = end;
    $('time-out').textContent = `step ${o.step[t]}`;
    $('K-out').textContent = K;
    $('dots').innerHTML = dots(members);
    $('mean').innerHTML = dots(mean);
    $('errors').innerHTML = error.map((e, i) => dot(at(i, e), i === K-1 ? 8 : 4)).join('');
    $('says').textContent = `Step ${o.step[t]} of ${o.step[end]}, ${K} ${K > 1 ? 'networks' : 'network'}: wrong on `
      + `${percent(error[K-1])} of the single-view data. The coins say ${percent(2**-K)}.`;
  }
  for (const name of ['time', 'K', 'seed']) $(name).addEventListener('input', draw);
  for (const name of ['time', 'K']) for (const [way, by] of [['less', -1], ['more', 1]])
    $(`${name}-${way}`).addEventListener('click', () => { $(name).value = +$(name).value + by; draw(); });
  draw();
})();
