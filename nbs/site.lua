-- Opens every notebook's page with a link that runs the notebook on Colab.
-- The base address is `colab` in _quarto.yml; front matter `colab: false` leaves the link out.
local function relative(path)
  local root = quarto.project.directory
  return root and pandoc.path.make_relative(path, root) or pandoc.path.filename(path)
end

function Pandoc(doc)
  local base, input = doc.meta.colab, quarto.doc.input_file
  if not base or not quarto.doc.is_format('html') or not (input or ''):match('%.ipynb$') then return nil end
  local href = pandoc.utils.stringify(base) .. '/' .. relative(input)
  doc.blocks:insert(1, pandoc.Div({pandoc.Para({pandoc.Link('Open in Colab', href)})}, {class='open-in-colab'}))
  return doc
end
