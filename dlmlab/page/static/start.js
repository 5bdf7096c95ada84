function start() {
  const { runs } = JSON.parse(document.getElementById("index").textContent);
  for (const run of runs) document.body.append(Object.assign(document.createElement("p"), { textContent: run.name }));
}
