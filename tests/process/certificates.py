"""Certificates for tests, made by openssl."""

import shutil
import subprocess


def has_openssl():
    return shutil.which("openssl") is not None


class Authority:
    """A CA with its files in a folder of its own."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self.key = folder / "ca.key"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-days", "2", "-subj", f"/CN={folder.name}",
                      "-keyout", self.key, "-out", self.certificate)

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.folder, check=True,
                       capture_output=True, text=True)

    def issue(self, name, alternatives, days=2):
        """Makes NAME.crt and NAME.key for `alternatives`, as in "DNS:agent,IP:127.0.0.1"; returns
        the two paths."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", f"{key}.new", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
                      "-CAcreateserial", "-days", days, "-extfile", extensions,
                      "-out", f"{certificate}.new")
        # As a renewal does: programs that read them have the old or the new ones.
        for path in (key, certificate):
            path.with_name(path.name + ".new").replace(path)
        return certificate, key

    def options(self, certificate=None, key=None, peer_name=None):
        """The options of a program with a certificate, or with none."""
        words = ["--tls-ca", self.certificate]
        if certificate:
            words += ["--tls-cert", certificate, "--tls-key", key]
        if peer_name:
            words += ["--tls-peer-name", peer_name]
        return words
