(function () {
  "use strict";
  document.documentElement.classList.add("scripted");
  document.querySelectorAll("section.checks").forEach(function (section) {
    var words = section.querySelector("input[type=search]");
    var boxes = Array.prototype.slice.call(section.querySelectorAll("input[type=checkbox]"));
    var rows = Array.prototype.slice.call(section.querySelectorAll("tbody tr"));
    var shown = section.querySelector("[role=status]");
    function filter() {
      var wanted = words.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
      var allowed = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
      var count = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        var keep = allowed.indexOf(row.dataset.word) >= 0 && wanted.every(function (word) { return text.indexOf(word) >= 0; });
        row.hidden = !keep;
        count += keep ? 1 : 0;
      });
      shown.textContent = count + " of " + rows.length + " shown";
    }
    words.addEventListener("input", filter);
    boxes.forEach(function (box) { box.addEventListener("change", filter); });
    filter();
  });
  document.querySelectorAll("button.copy").forEach(function (button) {
    button.addEventListener("click", function () {
      var code = button.parentElement.querySelector("code");
      var range = document.createRange();
      range.selectNodeContents(code);
      var selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = document.execCommand("copy") ? "copied" : "selected";
    });
  });
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.prototype.slice.call(document.querySelectorAll("figure details:not([open])"));
    opened.forEach(function (each) { each.open = true; });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (each) { each.open = false; });
  });
})();
