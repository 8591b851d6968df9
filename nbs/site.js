// What a page needs and no stylesheet can give: cells named by their column, boxes that scroll reachable by keyboard,
// names and roles that Quarto's own frame lacks. Without scripts the page reads as well, tables scroll.
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const main = document.querySelector('main') ?? document.body;

  function named(table) {
    const heads = all('thead tr:last-child > *', table);
    const rows = all('tbody tr', table);
    const plain = heads.length && rows.length && !all('[colspan]:not([colspan="1"]), [rowspan]:not([rowspan="1"])', table).length;
    if (!plain || rows.some(row => row.cells.length !== heads.length)) return;
    table.classList.add('cards');
    for (const [query, role] of [['thead, tbody', 'rowgroup'], ['tr', 'row'], ['th', 'columnheader'], ['td', 'cell']])
      all(query, table).forEach(o => o.setAttribute('role', role));
    table.setAttribute('role', 'table');
    for (const row of rows) [...row.cells].forEach((cell, i) => {
      const label = heads[i].textContent.trim();
      if (label) cell.dataset.label = label;
      // one grid item beside the label
      const inside = document.createElement('div');
      inside.append(...cell.childNodes);
      if (inside.hasChildNodes()) cell.append(inside);
    });
  }

  function boxed(table) {
    if (table.closest('.table-box')) return;
    const box = document.createElement('div');
    box.className = 'table-box';
    table.replaceWith(box);
    box.append(table);
  }

  // a header without text is no header
  for (const th of all('th', main)) if (!th.textContent.trim() && !th.querySelector('img[alt]')) {
    const td = document.createElement('td');
    for (const { name, value } of th.attributes) if (name !== 'scope') td.setAttribute(name, value);
    th.replaceWith(td);
  }
  for (const table of all('table', main)) if (!table.closest('.sourceCode')) { named(table); boxed(table); }

  // what scrolls sideways can be focused, so that the arrow keys move it
  const wide = '.table-box, pre, div.sourceCode, math[display="block"], .cell-output-display';
  function reachable() {
    for (const o of all(wide, main)) {
      const scrolls = o.scrollWidth > o.clientWidth + 1 && getComputedStyle(o).overflowX !== 'visible';
      if (scrolls && !o.hasAttribute('tabindex')) {
        o.tabIndex = 0;
        o.dataset.scrolls = '';
        if (!o.matches('math')) { o.setAttribute('role', 'group'); o.setAttribute('aria-label', 'scrolls sideways'); }
      } else if (!scrolls && 'scrolls' in o.dataset) {
        for (const name of ['tabindex', 'role', 'aria-label', 'data-scrolls']) o.removeAttribute(name);
      }
    }
  }
  reachable();
  addEventListener('resize', reachable);
  addEventListener('load', reachable);
  document.addEventListener('toggle', reachable, true);  // a fold that opens

  // Quarto's frame
  function button(o) {
    o.setAttribute('role', 'button');
    o.tabIndex = 0;
    o.addEventListener('keydown', e => {
      if (e.key !== 'Enter' && e.key !== ' ') return;
      e.preventDefault();
      o.click();
    });
  }
  const name = (query, label) => all(query).forEach(o => o.setAttribute('aria-label', label));
  name('nav.navbar', 'Site');
  name('nav.quarto-secondary-nav', 'Page');
  name('nav.sidebar-navigation', 'Chapters');
  name('nav.page-navigation', 'Previous and next page');
  all('.navbar-toggler[role="menu"]').forEach(o => o.removeAttribute('role'));
  all('#quarto-sidebar a[data-bs-toggle="collapse"], .callout-header[data-bs-toggle]').forEach(button);
})();
