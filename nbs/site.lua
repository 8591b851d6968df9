-- For every page: the site's own script; and for a notebook whose front matter says `colab: true`,
-- which has to install the package by itself, a link that runs it on Colab (base address: `colab-base` in _quarto.yml).
local function relative(path)
  local root = quarto.project.directory
  return root and pandoc.path.make_relative(path, root) or pandoc.path.filename(path)
end

function Pandoc(doc)
  if not quarto.doc.is_format('html') then return nil end
  quarto.doc.add_html_dependency({name='ensemble_kd', version='1', scripts={{path='site.js', afterBody=true}}})
  if doc.meta.colab ~= true then return nil end
  local href = pandoc.utils.stringify(doc.meta['colab-base']) .. '/' .. relative(quarto.doc.input_file)
  doc.blocks:insert(1, pandoc.Div({pandoc.Para({pandoc.Link('Open in Colab', href)})}, {class='open-in-colab'}))
  return doc
end
