"""Unpacks schemas of Kubernetes for kubeconform: lab_schemas.py WHEEL FOLDER VERSION...

A version is 1.34. References between the schemas become absolute, since kubeconform reads them from
where it runs.
"""

import pathlib
import sys
import zipfile

PREFIX = "kubernetes_validate/kubernetes-json-schema/v{}.0-local-strict/"
REFERENCE = '"/api/_definitions.json#'


def unpack(wheel, folder, version):
    """Writes the schemas of one version; returns how many there are."""
    prefix = PREFIX.format(version)
    target = (pathlib.Path(folder) / version).resolve()
    target.mkdir(parents=True, exist_ok=True)
    definitions = (target / "_definitions.json").as_uri()
    names = [name for name in wheel.namelist() if name.startswith(prefix)]
    for name in names:
        text = wheel.read(name).decode().replace(REFERENCE, f'"{definitions}#')
        (target / name[len(prefix):]).write_text(text)
    return len(names)


def main():
    path, folder, *versions = sys.argv[1:]
    with zipfile.ZipFile(path) as wheel:
        for version in versions:
            count = unpack(wheel, folder, version)
            if count == 0:
                sys.exit(f"lab_schemas: {path} has no schemas of Kubernetes {version}")
            print(f"lab_schemas: {count} schemas of Kubernetes {version}")


if __name__ == "__main__":
    main()
