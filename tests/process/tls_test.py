"""Coordinator, agents and autosp-cli with TLS, with certificates that openssl makes: who is let in,
and what is said to who is not."""

import re
import subprocess
import sys
import time
import unittest
import urllib.request

import certificates
import cluster

UNREACHABLE = 3
DAY_S = 24 * 3600


class TlsTest(unittest.TestCase):
    def setUp(self):
        self.workspace = cluster.Workspace()
        self.addCleanup(self.workspace.close)
        self.authority = certificates.Authority(self.workspace.folder / "authority")
        pair = self.authority.issue("node", "DNS:autosp,IP:127.0.0.1")
        self.cluster = cluster.Cluster(self.workspace, options=self.authority.options(*pair))

    def start_coordinator(self, *arguments):
        self.cluster.start_coordinator(arguments)
        cluster.wait_until(lambda: self.cluster.query("nodes") is not None, 30, "it answers")

    def ask(self, *options):
        """`autosp-cli nodes` with these options in place of the cluster's."""
        return self.workspace.cli("--server", f"127.0.0.1:{self.cluster.port}", *options, "nodes")

    def expect_refusal(self, words, *options):
        answer = self.ask(*options)
        self.assertEqual(answer.returncode, UNREACHABLE, answer.stderr)
        for word in words:
            self.assertIn(word, answer.stderr)

    def log_of(self, program):
        return (self.workspace.folder / f"{program}.log").read_text()

    def test_a_job_trains_where_all_have_certificates(self):
        self.cluster.start()
        job_id = self.cluster.submit(self.workspace.job())
        job = self.cluster.await_end(job_id, 60)
        self.assertEqual(job["state"], "succeeded", job)
        self.assertEqual(len(cluster.losses_of(self.cluster.events(job_id))), 5)
        logs = self.cluster.cli("logs", job_id)  # which the coordinator has from the agent
        self.assertEqual(logs.returncode, 0, logs.stderr)
        self.assertNotEqual(logs.stdout, "")
        self.assertIn("with TLS", self.log_of("coordinator"))
        self.assertIn("with TLS", self.log_of("node-a"))
        self.cluster.stop()
        # What watches the files of certificates is a thread, which must not take the signal.
        self.assertEqual([agent.returncode for agent in self.cluster.agents.values()], [0])
        self.assertIn("ending: the agent received signal", self.log_of("node-a"))
        self.workspace.expect_nothing_left([job_id])

    def test_a_client_without_a_certificate_is_let_in_only_on_demand(self):
        self.start_coordinator()
        self.expect_refusal(("--tls-cert and --tls-key",), *self.authority.options())
        self.cluster.stop()
        self.start_coordinator("--tls-clients", "any")
        answer = self.ask(*self.authority.options())
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.cluster.stop()

    def test_who_is_of_another_authority_is_refused(self):
        self.start_coordinator()
        other = certificates.Authority(self.workspace.folder / "other")
        stranger = other.issue("stranger", "DNS:stranger")
        self.expect_refusal(("has to be of the CA in", "other/ca.crt"), *other.options(*stranger))
        # It knows the coordinator, which does not know it.
        self.expect_refusal(("be of a CA that it trusts",), *self.authority.options(*stranger))
        self.cluster.stop()

    def test_the_name_in_the_certificate_counts(self):
        self.start_coordinator()
        self.expect_refusal(("have the name elsewhere (--tls-peer-name)",),
                            *self.cluster.options, "--tls-peer-name", "elsewhere")
        answer = self.ask(*self.cluster.options, "--tls-peer-name", "autosp")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.cluster.stop()

    def test_a_side_without_tls_is_told(self):
        self.start_coordinator()
        self.expect_refusal(("it speaks TLS, and this program does not: give --tls-ca",))
        tls, self.cluster.options = self.cluster.options, ()
        self.cluster.start_agent()
        cluster.wait_until(lambda: "it speaks TLS, and this program does not" in
                           self.log_of("node-a"), 20, "the agent says so")
        self.cluster.stop()
        self.start_coordinator()
        self.expect_refusal(("it does not speak TLS, and this program does",), *tls)
        self.cluster.stop()

    def test_certificates_are_renewed_while_it_runs(self):
        self.start_coordinator()
        renewed = ("--tls-peer-name", "renewed")
        self.assertEqual(self.ask(*self.cluster.options, *renewed).returncode, UNREACHABLE)
        self.authority.issue("node", "DNS:renewed")
        cluster.wait_until(lambda: self.ask(*self.cluster.options, *renewed).returncode == 0, 40,
                           "the new certificate is used")
        self.assertIsNone(self.cluster.coordinator.poll())
        self.cluster.stop()

    def expiries(self):
        """By file, of the coordinator; seconds from now."""
        port = re.search(r"metrics on port (\d+)", self.log_of("coordinator")).group(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = re.findall(
                r'^autosp_certificate_expiry_timestamp_seconds\{file="(\w+)"\} (\S+)$',
                answer.read().decode(), re.MULTILINE)
        return {file: float(value) - time.time() for file, value in lines}

    def test_metrics_say_when_certificates_expire(self):
        self.start_coordinator("--metrics-port", "0")
        expiries = self.expiries()
        self.assertEqual(sorted(expiries), ["ca", "certificate"])
        for seconds in expiries.values():
            self.assertLess(abs(seconds - 2 * DAY_S), 300)
        self.authority.issue("node", "DNS:autosp,IP:127.0.0.1", days=9)
        self.assertLess(abs(self.expiries()["certificate"] - 9 * DAY_S), 300)
        self.cluster.stop()

    def expect_expired(self, file):
        """By a time that no certificate has."""
        self.assertLess(abs(self.expiries()[file] + time.time()), 300)

    def test_what_cannot_be_used_counts_as_expired(self):
        certificate, key = self.authority.issue("own", "DNS:autosp,IP:127.0.0.1")
        self.cluster.options, options = (self.authority.options(certificate, key),
                                         self.cluster.options)
        self.start_coordinator("--metrics-port", "0")
        self.cluster.options = options
        whole = certificate.read_text()
        self.assertGreater(self.expiries()["certificate"], DAY_S)
        certificate.write_text("no certificate")
        self.expect_expired("certificate")
        other, _ = self.authority.issue("other", "DNS:autosp,IP:127.0.0.1", days=300)
        certificate.write_text(other.read_text())  # of another key
        self.expect_expired("certificate")
        certificate.unlink()
        self.expect_expired("certificate")
        certificate.write_text(whole)
        self.assertGreater(self.expiries()["certificate"], DAY_S)
        self.authority.certificate.rename(self.authority.folder / "away.crt")
        self.expect_expired("ca")
        self.assertGreater(self.expiries()["certificate"], DAY_S)
        self.cluster.stop()

    def test_what_is_between_it_and_the_ca_expires_too(self):
        between = self.authority.intermediate("between", days=1)
        certificate, key = self.authority.issue("leaf", "DNS:autosp,IP:127.0.0.1", days=365,
                                                issuer=between)
        chain = self.authority.folder / "chain.crt"
        chain.write_text(certificate.read_text() + between[0].read_text())
        self.cluster.options = self.authority.options(chain, key)
        self.start_coordinator("--metrics-port", "0")
        self.assertLess(abs(self.expiries()["certificate"] - DAY_S), 300)
        self.cluster.stop()
        expired, _ = self.authority.intermediate("expired", days=-1)
        certificate, key = self.authority.issue(
            "late", "DNS:late", issuer=(expired, expired.with_suffix(".key")))
        chain.write_text(certificate.read_text() + expired.read_text())
        self.expect_no_start("the certificate of CN = expired was valid until",
                             *self.authority.options(chain, key))
        # One that the CA itself has issued needs nothing in between.
        certificate, key = self.authority.issue("direct", "DNS:autosp,IP:127.0.0.1", days=9)
        chain.write_text(certificate.read_text() + expired.read_text())
        self.cluster.options = self.authority.options(chain, key)
        self.start_coordinator("--metrics-port", "0")
        self.cluster.stop()

    def test_an_old_authority_may_stay_in_the_file_beside_the_new_one(self):
        old, _ = self.authority.issue("old", "DNS:old", days=-1)
        both = old.read_text() + self.authority.certificate.read_text()
        self.authority.certificate.write_text(both)
        self.start_coordinator()
        self.cluster.stop()
        self.authority.certificate.write_text(old.read_text())
        self.expect_no_start("--tls-ca: ", *self.cluster.options)

    def test_files_that_stop_fitting_are_said_to_be_at_fault(self):
        certificate, key = self.authority.issue("own", "DNS:autosp,IP:127.0.0.1")
        options, self.cluster.options = self.cluster.options, self.authority.options(certificate,
                                                                                    key)
        self.start_coordinator()
        certificate.write_text("no certificate")
        cluster.wait_until(lambda: self.ask(*options).returncode == UNREACHABLE, 40,
                           "the damaged certificate is used")
        self.expect_refusal(("may not fit each other since they were renewed",), *options)
        self.cluster.stop()

    def expect_no_start(self, words, *options):
        for program in (("autosp-coordinator", "--listen", "127.0.0.1:0"),
                        ("autosp-agent", "--coordinator", "127.0.0.1:1")):
            answer = subprocess.run(
                [cluster.BIN / program[0], *program[1:], *map(str, options)],
                env=self.workspace.env, cwd=self.workspace.folder, capture_output=True, text=True,
                timeout=cluster.COMMAND_TIMEOUT_S, check=False)
            self.assertEqual(answer.returncode, 1, answer)
            self.assertIn(words, answer.stderr)

    def test_files_that_cannot_work_are_said_at_the_start(self):
        certificate, key = self.authority.issue("fits", "DNS:fits")
        _, other_key = self.authority.issue("other", "DNS:other")
        options = self.authority.options
        self.expect_no_start("belong together; give all three", *options())
        self.expect_no_start(f"is not the key of --tls-cert {certificate}",
                             *options(certificate, other_key))
        self.expect_no_start("has no certificate in PEM form", *options(key, key))
        self.expect_no_start("has no private key in PEM form", *options(certificate, certificate))
        self.expect_no_start("No such file", *options(certificate, "missing.key"))
        expired, expired_key = self.authority.issue("expired", "DNS:expired", days=-1)
        self.expect_no_start("; renew it", *options(expired, expired_key))
        damaged = self.workspace.folder / "damaged.crt"
        damaged.write_text(self.authority.certificate.read_text() + expired.read_text()[:200])
        self.expect_no_start("damaged.crt: certificate 2 is damaged",
                             "--tls-ca", damaged, "--tls-cert", certificate, "--tls-key", key)
        self.expect_no_start("is valid from", *options(*self.authority.issue_for_tomorrow()))
        answer = self.workspace.cli("nodes", "--tls-cert", certificate)
        self.assertEqual((answer.returncode, answer.stdout), (2, ""), answer)
        self.assertIn("--tls-cert and --tls-key belong together", answer.stderr)


if __name__ == "__main__":
    if not certificates.has_openssl():
        print("skipped: there is no openssl")
        sys.exit(77)
    cluster.run_at_once(4)
