"""The few kinds of panel that the dashboards are made of, as Grafana stores them."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHT = 8


def query(expr, legend="", instant=False):
    return {"expr": expr, "legendFormat": legend, "instant": instant, "range": not instant}


def panel(kind, title, unit, queries, width=12, description="", options=None, custom=None):
    """A panel without its place; `unit` is Grafana's name of it."""
    targets = [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, **q}
               for i, q in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom or {}}, "overrides": []},
        "options": options or {},
        "gridPos": {"w": width, "h": HEIGHT},
    }


def lines(title, unit, queries, stacked=False, **more):
    custom = {"lineWidth": 1, "fillOpacity": 10 if stacked else 0, "showPoints": "never",
              "stacking": {"mode": "normal" if stacked else "none"}}
    options = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, unit, queries, options=options, custom=custom, **more)


def number(title, unit, expr, legend="", **more):
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value",
               "graphMode": "area"}
    return panel("stat", title, unit, [query(expr, legend)], options=options, width=4, **more)


def heat_map(title, unit, expr, legend, **more):
    """A row for each series: its name is the place, its value the colour."""
    options = {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges"},
               "cellValues": {"unit": unit}, "rowsFrame": {"layout": "auto"},
               "yAxis": {"unit": "none"}}
    shown = panel("heatmap", title, unit, [query(expr, legend)], options=options, width=WIDTH,
                  **more)
    shown["targets"][0]["format"] = "time_series"
    return shown


def variable(name, label, definition):
    return {"type": "query", "name": name, "label": label, "datasource": DATASOURCE,
            "definition": definition, "query": {"query": definition, "refId": name},
            "refresh": 2, "sort": 2, "multi": False, "includeAll": False}


def place(panels):
    """Gives the panels their places: from left to right, row by row."""
    x = y = 0
    for number_of, shown in enumerate(panels, 1):
        width = shown["gridPos"]["w"]
        if x + width > WIDTH:
            x, y = 0, y + HEIGHT
        shown["id"] = number_of
        shown["gridPos"].update(x=x, y=y)
        x += width
    return panels


def dashboard(uid, title, description, panels, variables=()):
    source = {"type": "datasource", "name": "datasource", "label": "Prometheus",
              "query": "prometheus", "current": {}}
    links = [{"type": "dashboards", "title": "AutoSP", "tags": ["autosp"], "asDropdown": True,
              "keepTime": True}]
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["autosp"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": links,
        "templating": {"list": [source, *variables]},
        "panels": place(panels),
    }
