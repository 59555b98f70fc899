// Package hashicorp runs a real HashiCorp Vault server for tests: not in its development mode, but as it is deployed, with storage in
// files, sealed at the start, TLS with an authority of its own, a KV engine of version 2, logins by AppRole and by certificate, and an audit log.
//
// The program is built from the Go module proxy by the script beside this file, and kept outside the repository.
package hashicorp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/tests/stage"
)

// startTimeout is how long a server may take until it answers: its program is large and the machine may be busy.
const startTimeout = 60 * time.Second

// A Server is a HashiCorp Vault. Its methods are for one goroutine at a time.
type Server struct {
	dir, binary, address string
	client               *http.Client
	root                 string // token
	key                  string // unseals
	cmd                  *exec.Cmd
	exited               chan struct{}
}

// Start makes a server in a folder, starts, initialises and unseals it, and turns on what tests need.
func Start(ctx context.Context, dir string) (*Server, error) {
	binary, err := build(ctx)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, binary: binary, address: l.Addr().String()}
	if err := errors.Join(l.Close(), os.MkdirAll(s.path("data"), 0o700), s.certificates()); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`storage "file" { path = %q }
listener "tcp" {
  address = %q
  tls_cert_file = %q
  tls_key_file = %q
}
disable_mlock = true
api_addr = %q
`, s.path("data"), s.address, s.path("server.pem"), s.path("server-key.pem"), s.URL())
	if err := os.WriteFile(s.path("vault.hcl"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := s.setUp(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// build finds the program, or builds it: six minutes, once.
func build(ctx context.Context) (string, error) {
	root, err := stage.ModuleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tests", "hashicorp", "build"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building HashiCorp Vault: %w\n%s", err, said.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func (s *Server) setUp(ctx context.Context) error {
	if err := s.Run(ctx); err != nil {
		return err
	}
	var made struct {
		Keys []string `json:"keys"`
		Root string   `json:"root_token"`
	}
	if err := s.call(ctx, http.MethodPut, "sys/init", nil, map[string]any{"secret_shares": 1, "secret_threshold": 1}, &made); err != nil {
		return err
	}
	s.key, s.root = made.Keys[0], made.Root
	if err := s.Unseal(ctx); err != nil {
		return err
	}
	ca, err := os.ReadFile(s.CA())
	if err != nil {
		return err
	}
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": s.AuditLog()}}},
		{"sys/mounts/kv", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}},
		{"sys/auth/approle", map[string]any{"type": "approle"}},
		{"sys/auth/cert", map[string]any{"type": "cert"}},
		{"sys/policies/acl/pin", map[string]any{"policy": `path "kv/data/sallyport/*" { capabilities = ["read"] }`}},
		{"auth/cert/certs/sallyport", map[string]any{"certificate": string(ca), "allowed_common_names": "sallyport-vault", "token_policies": "pin"}},
	} {
		if err := s.Write(ctx, step.path, step.body, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// URL is where the server is, CA its authority, AuditLog what it writes about each request, Log what it says otherwise.
func (s *Server) URL() string { return "https://" + s.address }

// CA is the PEM file of the authority of the server's and the client's certificates.
func (s *Server) CA() string { return s.path("ca.pem") }

// AuditLog is the file in which the server records each request.
func (s *Server) AuditLog() string { return s.path("audit.log") }

// ClientCertificate is a certificate that the cert method takes, and its key.
func (s *Server) ClientCertificate() (certificate, key string) {
	return s.path("client.pem"), s.path("client-key.pem")
}

// StrangerCertificate is a certificate of the same authority for somebody else.
func (s *Server) StrangerCertificate() (certificate, key string) {
	return s.path("stranger.pem"), s.path("stranger-key.pem")
}

// Run starts the server's process, as it is after Kill, and waits until it answers. It is sealed then.
func (s *Server) Run(ctx context.Context) error {
	log, err := os.OpenFile(s.path("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "server", "-config", s.path("vault.hcl"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed in the end
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	for deadline := time.Now().Add(startTimeout); ; {
		r, err := s.client.Get(s.URL() + "/v1/sys/seal-status")
		if err == nil {
			r.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-exited:
			text, _ := os.ReadFile(s.path("server.log")) // the exit is what counts
			return fmt.Errorf("HashiCorp Vault did not start:\n%s", text)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("HashiCorp Vault does not answer: %w", err)
		}
	}
}

// Unseal opens the server.
func (s *Server) Unseal(ctx context.Context) error {
	if err := s.call(ctx, http.MethodPut, "sys/unseal", nil, map[string]any{"key": s.key}, nil); err != nil {
		return err
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) { // until it is active
		r, err := s.client.Get(s.URL() + "/v1/sys/health")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("HashiCorp Vault is not active: %w", err)
		}
	}
}

// Seal closes the server: it answers 503.
func (s *Server) Seal(ctx context.Context) error { return s.Write(ctx, "sys/seal", nil, nil) }

// Kill ends the process, if there is one.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may be over already
	<-s.exited
	s.cmd = nil
}

// Signal sends the process a signal: SIGSTOP hangs it, SIGCONT lets it go on.
func (s *Server) Signal(signal syscall.Signal) error { return s.cmd.Process.Signal(signal) }

// Put writes a secret of the KV engine.
func (s *Server) Put(ctx context.Context, path string, values map[string]any) error {
	return s.Write(ctx, "kv/data/"+path, map[string]any{"data": values}, nil)
}

// Role makes an AppRole and returns its role id.
func (s *Server) Role(ctx context.Context, name string, settings map[string]any) (string, error) {
	if err := s.Write(ctx, "auth/approle/role/"+name, settings, nil); err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			ID string `json:"role_id"`
		} `json:"data"`
	}
	err := s.call(ctx, http.MethodGet, "auth/approle/role/"+name+"/role-id", http.Header{"X-Vault-Token": {s.root}}, nil, &answer)
	return answer.Data.ID, err
}

// Wrap has a path make something, and wraps it: a role's secret id, say. It returns the wrapping token.
func (s *Server) Wrap(ctx context.Context, path string) (string, error) {
	var answer struct {
		Wrap struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	err := s.call(ctx, http.MethodPut, path, http.Header{"X-Vault-Token": {s.root}, "X-Vault-Wrap-Ttl": {"120s"}}, map[string]any{}, &answer)
	return answer.Wrap.Token, err
}

// Unwrap takes out what a wrapping token holds, as a thief would.
func (s *Server) Unwrap(ctx context.Context, token string) error {
	return s.call(ctx, http.MethodPut, "sys/wrapping/unwrap", http.Header{"X-Vault-Token": {token}}, nil, nil)
}

// Write sends a request with the root token.
func (s *Server) Write(ctx context.Context, path string, body map[string]any, answer any) error {
	return s.call(ctx, http.MethodPut, path, http.Header{"X-Vault-Token": {s.root}}, body, answer)
}

func (s *Server) call(ctx context.Context, method, path string, header http.Header, body map[string]any, answer any) error {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.URL()+"/v1/"+path, text)
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header
	}
	response, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("HashiCorp Vault: %s %s: status %d: %s", method, path, response.StatusCode, said)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// certificates makes an authority, the server's certificate and two clients'.
func (s *Server) certificates() error {
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := s.certificate("ca", authority, authority, authorityKey, authorityKey); err != nil {
		return err
	}
	for i, name := range []string{"server", "client", "stranger"} {
		usage := x509.ExtKeyUsageClientAuth
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
			Subject: pkix.Name{CommonName: map[string]string{"server": "localhost", "client": "sallyport-vault", "stranger": "somebody"}[name]},
		}
		if name == "server" {
			usage = x509.ExtKeyUsageServerAuth
			template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if err := s.certificate(name, template, authority, key, authorityKey); err != nil {
			return err
		}
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(s.CA())
	if err != nil {
		return err
	}
	pool.AppendCertsFromPEM(text)
	s.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}
	return nil
}

func (s *Server) certificate(name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(s.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(s.path(name+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
