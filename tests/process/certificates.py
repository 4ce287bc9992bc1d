"""Certificates for tests, made by openssl."""

import shutil
import subprocess
import time


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

    def issue(self, name, alternatives, days=2, issuer=None):
        """Makes NAME.crt and NAME.key for `alternatives`, as in "DNS:agent,IP:127.0.0.1"; returns
        the two paths. `issuer` is the pair of an intermediate(), else it is the CA."""
        return self._issue(name, f"subjectAltName={alternatives}\n", days,
                           issuer or (self.certificate, self.key))

    def intermediate(self, name, days=2):
        """Between the CA and the certificates that it issues."""
        return self._issue(name, "basicConstraints=critical,CA:true\n", days,
                           (self.certificate, self.key))

    def _issue(self, name, text, days, issuer):
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(text)
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", f"/CN={name}", "-keyout", f"{key}.new", "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", issuer[0], "-CAkey", issuer[1],
                      "-CAcreateserial", "-days", days, "-extfile", extensions,
                      "-out", f"{certificate}.new")
        # As a renewal does: programs that read them have the old or the new ones.
        for path in (key, certificate):
            path.with_name(path.name + ".new").replace(path)
        return certificate, key

    def issue_for_tomorrow(self):
        """The same of a certificate that is not valid before."""
        certificate, key = self.issue("tomorrow", "DNS:tomorrow")
        certificate.unlink()
        self.folder.joinpath("index.txt").touch()
        config = self.folder / "ca.conf"
        config.write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\n"
                          "rand_serial=yes\ndefault_md=sha256\npolicy=p\n"
                          "[p]\ncommonName=supplied\n")
        begin = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() + 24 * 3600))
        self._openssl("ca", "-batch", "-notext", "-config", config, "-cert", self.certificate,
                      "-keyfile", self.key, "-startdate", begin, "-days", "2",
                      "-in", self.folder / "tomorrow.csr", "-out", certificate)
        return certificate, key

    def options(self, certificate=None, key=None, peer_name=None):
        """The options of a program with a certificate, or with none."""
        words = ["--tls-ca", self.certificate]
        if certificate:
            words += ["--tls-cert", certificate, "--tls-key", key]
        if peer_name:
            words += ["--tls-peer-name", peer_name]
        return words
