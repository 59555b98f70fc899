package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	storefrontapi "github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
	"github.com/sallyport/sallyport/vault/keyserver/api"
	"github.com/sallyport/sallyport/vault/pre/password"
)

// keyExchange is Anna with a password, on a stage with a key server.
type keyExchange struct {
	*stage.Stage
	server *stage.KeyServer
	url    string
	anna   policies.OwnerID
	http   *http.Client
}

const (
	firstPassword  = "correct horse battery"
	secondPassword = "staple correct horse"
)

// TestKeyExchange is the third source system, step by step: keys are made on the device, the private part goes to a key server encrypted by the password, and comes
// back on a new device, for an access token that the key server validates with the storefront, and a proof of the password.
func TestKeyExchange(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stage")
	door, introspection, err := stage.KeyServerDoor(dir)
	must(t, err)
	k := &keyExchange{Stage: openStage(t, stage.Options{Dir: dir, StorefrontConfig: storefrontLimits + door})}
	k.server, err = k.NewKeyServer(t.Context(), introspection, "per_second = 10000.0\nburst = 10000\ntries = 10000.0")
	must(t, err)
	t.Cleanup(func() { must(t, k.server.Stop()) })
	k.url, err = k.server.URL()
	must(t, err)
	k.http = k.client(t, "")

	t.Run("create key pair", func(t *testing.T) {
		play(t, k.Stage, 0, "anna", "me", "init")
		play(t, k.Stage, 0, "anna", "me", "set", "phone.mobile", "+49 151 2345678")
	})
	t.Run("private key, encrypted by the password, to the key server", func(t *testing.T) {
		play(t, k.Stage, 1, "anna", "me", "password", "set", "--account-server", k.url, "--new-password-file", k.secret(t, "too short"))
		r := play(t, k.Stage, 0, "anna", "--json", "me", "password", "set", "--account-server", k.url, "--new-password-file", k.secret(t, firstPassword))
		var said struct {
			ID policies.OwnerID `json:"id"`
		}
		must(t, json.Unmarshal([]byte(r.Stdout), &said))
		k.anna = said.ID
	})
	t.Run("private key on a new device", func(t *testing.T) {
		k.restore(t, 0, "laptop", "--password", "--password-file", k.secret(t, firstPassword))
		k.has(t, "laptop", "+49 151 2345678")
		// The new device is one like the first: it publishes, and the first takes it over.
		play(t, k.Stage, 0, "laptop", "me", "set", "phone.mobile", "+49 151 999")
		play(t, k.Stage, 0, "anna", "me", "sync")
		k.has(t, "anna", "+49 151 999")
	})
	t.Run("a wrong password gives nothing and is counted", func(t *testing.T) {
		r := k.restore(t, 3, "thief", "--password", "--password-file", k.secret(t, "correct horse batterie"))
		if !strings.Contains(r.Stderr, "password") || strings.Contains(r.Stderr, "batterie") {
			t.Errorf("it says %q", r.Stderr)
		}
		if n := k.tried(t); n != 1 {
			t.Errorf("%d passwords were tried", n)
		}
	})
	t.Run("two devices change the password apart", func(t *testing.T) {
		// The laptop changes it. The first device does not know, and is told; nothing is lost.
		play(t, k.Stage, 0, "laptop", "me", "password", "change", "--new-password-file", k.secret(t, secondPassword))
		r := play(t, k.Stage, 3, "anna", "me", "password", "change", "--new-password-file", k.secret(t, "something else entirely"))
		if !strings.Contains(r.Stderr, "nother of your devices") {
			t.Errorf("it says %q", r.Stderr)
		}
		k.restore(t, 0, "second", "--password", "--password-file", k.secret(t, secondPassword))
		k.restore(t, 3, "first", "--password", "--password-file", k.secret(t, firstPassword)) // the old one is over
		// She means it: what this device says counts.
		play(t, k.Stage, 0, "anna", "me", "password", "change", "--replace", "--new-password-file", k.secret(t, firstPassword))
		k.restore(t, 0, "third", "--password", "--password-file", k.secret(t, firstPassword))
	})
	t.Run("recovery kit", func(t *testing.T) {
		first := k.sheet(t, "print")
		play(t, k.Stage, 0, "anna", "me", "kit", "test", "--code-file", k.secret(t, strings.ToLower(first)))
		// A new sheet ends the one before: it is made only when that was said, and there is a place for it. One that others could read is asked about.
		if r := play(t, k.Stage, 1, "anna", "me", "kit", "print"); !strings.Contains(r.Stderr, "You have a sheet already") || r.Stdout != "" {
			t.Errorf("it says %q, %q", r.Stdout, r.Stderr)
		}
		play(t, k.Stage, 1, "anna", "me", "kit", "replace", "--output", filepath.Join(t.TempDir(), "no folder", "sheet"))
		cloud := filepath.Join(t.TempDir(), "Dropbox")
		must(t, os.Mkdir(cloud, 0o700))
		for _, args := range [][]string{{"kit", "replace", "--output"}, {"backup"}, {"export", "--format", "json", "--output"}} {
			file := filepath.Join(cloud, args[0])
			args = append(append([]string{"me"}, args...), file)
			if r := play(t, k.Stage, 1, "anna", args...); !strings.Contains(r.Stderr, "Dropbox") {
				t.Errorf("%q says %q", args, r.Stderr)
			}
			if _, err := os.Lstat(file); err == nil {
				t.Errorf("%q wrote it all the same", args)
			}
		}
		play(t, k.Stage, 0, "anna", "me", "export", "--output", filepath.Join(cloud, "card"), "--yes")
		play(t, k.Stage, 0, "anna", "me", "kit", "test", "--code-file", k.secret(t, first))
		k.restore(t, 0, "from-paper", "--kit", "--code-file", k.secret(t, first))
		k.has(t, "from-paper", "+49 151 999")
		second := k.sheet(t, "replace")
		play(t, k.Stage, 3, "anna", "me", "kit", "test", "--code-file", k.secret(t, first))
		play(t, k.Stage, 0, "anna", "me", "kit", "test", "--code-file", k.secret(t, second))
		k.restore(t, 0, "with-both", "--password", "--password-file", k.secret(t, firstPassword)) // the sheet did not touch the password
		play(t, k.Stage, 1, "anna", "me", "kit", "off")                                           // it is asked whether that is meant
		play(t, k.Stage, 0, "anna", "me", "kit", "off", "--yes")
		// A sheet has all that a new device needs, but for the certificates of this test.
		sheet := play(t, k.Stage, 0, "anna", "me", "kit", "print").Stdout
		command := regexp.MustCompile(`(?m)^sallyport (me restore --kit .*) '(.*)'$`).FindStringSubmatch(sheet)
		code := regexp.MustCompile(`(?m)^Code: +(.*)$`).FindStringSubmatch(sheet)
		if command == nil || code == nil {
			t.Fatalf("the sheet is\n%s", sheet)
		}
		args := append(append([]string{"--ca", k.CA()}, strings.Fields(command[1])...), command[2], "--code-file", k.secret(t, code[1]))
		play(t, k.Stage, 0, "as-printed", args...)
		k.has(t, "as-printed", "+49 151 999")
		play(t, k.Stage, 0, "anna", "me", "kit", "off", "--yes")
		if r := play(t, k.Stage, 0, "anna", "me", "kit", "off", "--yes"); !strings.Contains(r.Stdout, "no sheet") {
			t.Errorf("without a sheet it says %q", r.Stdout)
		}
		k.restore(t, 3, "late", "--kit", "--code-file", k.secret(t, second))
	})
	t.Run("a sheet that another device printed", func(t *testing.T) {
		code := k.sheet(t, "print")
		// Only kit replace ends a sheet that works, whichever device printed it.
		if r, err := k.Sallyport(t.Context(), "laptop", "me", "kit", "print", "--replace"); err != nil || r.Code == 0 || strings.Contains(r.Stdout, "RECOVERY") {
			t.Errorf("kit print --replace ended the sheet of another device and says %q, %v", r.Stderr, err)
		}
		if r, err := k.Sallyport(t.Context(), "anna", "me", "kit", "test", "--code-file", k.secret(t, code)); err != nil || r.Code != 0 {
			t.Errorf("the sheet opens nothing any more: %q, %v", r.Stderr, err)
		}
		// Where another device switched the sheet off there is none.
		play(t, k.Stage, 0, "laptop", "me", "kit", "off", "--yes", "--replace")
		if r, err := k.Sallyport(t.Context(), "anna", "me", "kit", "print"); err != nil || strings.Contains(r.Stderr, "You have a sheet already") {
			t.Errorf("it says %q, %v", r.Stderr, err)
		}
	})
	t.Run("a storefront that mints tokens gets no profile", func(t *testing.T) {
		token := k.mint(t, k.anna)
		e, err := k.guess(t.Context(), token, k.anna)
		must(t, err)
		k.refused(t, policies.CodePasswordWrong, k.post(t.Context(), k.url+api.PathOpen, token, api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)}, new(api.Opened)))
		// The attempt is used up, and another account's token does not help.
		k.refused(t, policies.CodeNotFound, k.post(t.Context(), k.url+api.PathOpen, token, api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)}, new(api.Opened)))
		other := k.mint(t, policies.OwnerID{7})
		_, err = k.guess(t.Context(), other, k.anna)
		k.refused(t, policies.CodeUnauthorized, err)
		// What only a device that is logged in may ask is refused, whatever is signed; so is no token, and one of the wrong form.
		for _, path := range []string{api.PathAsk, api.PathAccount} {
			k.refused(t, policies.CodeUnauthorized, k.post(t.Context(), k.url+path, token, api.Signed{}, new(api.Answer)))
		}
		for _, none := range []string{"", "abc", token + "A", strings.ToUpper(token)} {
			_, err := k.guess(t.Context(), none, k.anna)
			k.refused(t, policies.CodeUnauthorized, err)
		}
	})
	t.Run("nobody learns whether there is an account", func(t *testing.T) {
		nobody := policies.OwnerID{42}
		token := k.mint(t, nobody)
		for i := range api.Tries {
			e, err := k.guess(t.Context(), token, nobody)
			must(t, err)
			if len(e.X) != 32 || len(e.Salt) != password.SaltSize || e.Left != api.Tries-1-i {
				t.Fatalf("%+v", e)
			}
			k.refused(t, policies.CodePasswordWrong, k.post(t.Context(), k.url+api.PathOpen, token, api.Proof{Attempt: e.Attempt, Proof: make([]byte, 32)}, new(api.Opened)))
		}
		_, err := k.guess(t.Context(), token, nobody)
		k.refused(t, policies.CodePasswordLocked, err)
		k.refused(t, policies.CodeKitWrong, k.post(t.Context(), k.url+api.PathKit, token, api.KitProof{Owner: nobody, Proof: make([]byte, 32)}, new(api.Opened)))
	})
	t.Run("killed between count and answer", func(t *testing.T) {
		play(t, k.Stage, 0, "anna", "me", "password", "unlock")
		token := k.mint(t, k.anna)
		var answers, before int
		for _, delay := range []time.Duration{8, 16, 24, 40, 80} {
			var wait sync.WaitGroup
			var mu sync.Mutex
			for range 2 {
				wait.Go(func() {
					if _, err := k.guess(t.Context(), token, k.anna); err == nil {
						mu.Lock()
						answers++
						mu.Unlock()
					}
				})
			}
			time.Sleep(delay * time.Millisecond)
			k.server.Kill()
			wait.Wait()
			k.http.CloseIdleConnections()
			must(t, k.server.Start(t.Context()))
			n := k.tried(t)
			if n < answers || n < before {
				t.Fatalf("%d answers went out and %d are counted, %d before", answers, n, before)
			}
			before = n
		}
		t.Logf("5 kills: %d answers, %d counted", answers, before)
	})
	t.Run("last week's backup gives no tries back", func(t *testing.T) {
		play(t, k.Stage, 0, "anna", "me", "password", "unlock")
		must(t, k.server.Stop())
		week, now := filepath.Join(t.TempDir(), "week"), filepath.Join(t.TempDir(), "now")
		k.copyOut(t, week)
		must(t, k.server.Start(t.Context()))
		k.http.CloseIdleConnections()
		token := k.mint(t, k.anna)
		for range 5 {
			_, err := k.guess(t.Context(), token, k.anna)
			must(t, err)
		}
		must(t, k.server.Stop())
		k.copyOut(t, now)
		k.putBack(t, week)
		if err := k.server.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("it serves with a log and a state of last week: %v", err)
		}
		k.putBack(t, now)
		must(t, k.server.Start(t.Context()))
		k.http.CloseIdleConnections()
		if n := k.tried(t); n != 5 {
			t.Errorf("%d are counted", n)
		}
	})
	t.Run("the eleventh guess", func(t *testing.T) {
		token := k.mint(t, k.anna)
		for range api.Tries - 5 {
			_, err := k.guess(t.Context(), token, k.anna)
			must(t, err)
		}
		_, err := k.guess(t.Context(), token, k.anna)
		k.refused(t, policies.CodePasswordLocked, err)
		k.restore(t, 3, "right-but-late", "--password", "--password-file", k.secret(t, firstPassword))
		must(t, k.server.Stop())
		must(t, k.server.Start(t.Context()))
		k.http.CloseIdleConnections()
		k.restore(t, 3, "after-a-restart", "--password", "--password-file", k.secret(t, firstPassword))
		play(t, k.Stage, 0, "anna", "me", "password", "unlock") // her signature from a device that works
		k.restore(t, 0, "at-last", "--password", "--password-file", k.secret(t, firstPassword))
		k.has(t, "at-last", "+49 151 999")
	})
	t.Run("a stolen device changes nothing any more", func(t *testing.T) {
		// The laptop is stolen. Anna replaces everything that it could open, and sets her password anew. What is wrong with a new one is said before that.
		unwritten := filepath.Join(t.TempDir(), "before.backup")
		play(t, k.Stage, 1, "anna", "me", "replace", "--stolen", "--backup", unwritten, "--new-password-file", k.secret(t, "too short"))
		if _, err := os.Lstat(unwritten); err == nil {
			t.Error("it began all the same")
		}
		if out := play(t, k.Stage, 0, "anna", "me", "replace", "--stolen", "--backup", filepath.Join(t.TempDir(), "after.backup")).Stdout; !strings.Contains(out, "Both are switched off") {
			t.Errorf("it does not say what became of the password: %s", out)
		}
		if out := play(t, k.Stage, 0, "anna", "--json", "me", "password", "status").Stdout; !strings.Contains(out, `"password": false`) || !strings.Contains(out, `"outdated": false`) {
			t.Errorf("the status is %s", out)
		}
		k.restore(t, 3, "before", "--password", "--password-file", k.secret(t, firstPassword)) // it opened what was stolen
		play(t, k.Stage, 0, "anna", "me", "password", "set", "--new-password-file", k.secret(t, secondPassword))
		r, err := k.Sallyport(t.Context(), "laptop", "me", "password", "change", "--replace", "--new-password-file", k.secret(t, "the thief's password"))
		must(t, err)
		if r.Code == 0 {
			t.Error("the thief changed the password")
		}
		k.restore(t, 3, "thief-2", "--password", "--password-file", k.secret(t, "the thief's password"))
		k.restore(t, 0, "after", "--password", "--password-file", k.secret(t, secondPassword))
		k.has(t, "after", "+49 151 999")
	})
	t.Run("the doors take the right certificate and no other", func(t *testing.T) {
		for name, c := range map[string]struct {
			url, certificate string
			in               bool
		}{
			"the key server at the storefront": {"https://" + introspection + storefrontapi.PathIntrospect, "keyserver-client", true},
			"the storefront at itself":         {"https://" + introspection + storefrontapi.PathIntrospect, "storefront-client", false},
			"nobody at the storefront":         {"https://" + introspection + storefrontapi.PathIntrospect, "", false},
			"the key server at the vault":      {k.VaultURL() + "/v1/health", "keyserver-client", false},
		} {
			resp, err := k.client(t, c.certificate).Post(c.url, "application/x-www-form-urlencoded", strings.NewReader("token=abc"))
			if (err == nil) != c.in {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				resp.Body.Close()
			}
		}
	})
	t.Run("neither password nor code is anywhere", func(t *testing.T) {
		must(t, k.server.Stop())
		k.silent(t, []search.Marker{{Name: "the first password", Value: []byte(firstPassword)}, {Name: "the second password", Value: []byte(secondPassword)}, {Name: "the phone number", Value: []byte("151 999")}})
		must(t, k.server.Start(t.Context()))
	})
	t.Run("the account goes with the person", func(t *testing.T) {
		// While the account server is away nothing is closed, unless she says so.
		must(t, k.server.Stop())
		if r := play(t, k.Stage, 5, "anna", "me", "delete", "--yes", "DELETE"); !strings.Contains(r.Stderr, "nothing is closed yet") {
			t.Errorf("it says %q", r.Stderr)
		}
		must(t, k.server.Start(t.Context()))
		k.http.CloseIdleConnections()
		play(t, k.Stage, 0, "anna", "me", "delete", "--yes", "DELETE")
		k.restore(t, 3, "ghost", "--password", "--password-file", k.secret(t, secondPassword))
	})
}

// secret writes something that a person would type into a file that only they can read.
func (k *keyExchange) secret(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(name, []byte(text+"\n"), 0o600))
	return name
}

// restore sets a new device up with what Anna knows.
func (k *keyExchange) restore(t *testing.T, code int, device string, args ...string) stage.Result {
	t.Helper()
	all := append([]string{"--ca", k.CA(), "me", "restore", "--account-server", k.url, "--account", k.anna.String(), "--join", k.Join()}, args...)
	return play(t, k.Stage, code, device, all...)
}

// has demands a phone number of a device.
func (k *keyExchange) has(t *testing.T, device, phone string) {
	t.Helper()
	if r := play(t, k.Stage, 0, device, "me", "get", "phone.mobile"); strings.TrimSpace(r.Stdout) != phone {
		t.Errorf("%s has %q", device, r.Stdout)
	}
}

// sheet prints a recovery sheet and returns its code.
func (k *keyExchange) sheet(t *testing.T, command string) string {
	t.Helper()
	var said struct {
		Code string `json:"code"`
	}
	must(t, json.Unmarshal([]byte(play(t, k.Stage, 0, "anna", "--json", "me", "kit", command).Stdout), &said))
	return said.Code
}

// tried is how many passwords were tried since the count began.
func (k *keyExchange) tried(t *testing.T) int {
	t.Helper()
	var said struct {
		Tried int `json:"tried"`
	}
	must(t, json.Unmarshal([]byte(play(t, k.Stage, 0, "anna", "--json", "me", "password", "status").Stdout), &said))
	return said.Tried
}

func (k *keyExchange) refused(t *testing.T, want policies.Code, err error) {
	t.Helper()
	if problem.Of(err).Code != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// copyOut and putBack are a backup of log and signer's state.
func (k *keyExchange) copyOut(t *testing.T, to string) {
	t.Helper()
	must(t, os.CopyFS(filepath.Join(to, "log"), os.DirFS(k.server.LogFolder)))
	must(t, os.CopyFS(filepath.Join(to, "state"), os.DirFS(k.server.State)))
}

func (k *keyExchange) putBack(t *testing.T, from string) {
	t.Helper()
	for name, folder := range map[string]string{"log": k.server.LogFolder, "state": k.server.State} {
		must(t, os.RemoveAll(folder))
		must(t, os.CopyFS(folder, os.DirFS(filepath.Join(from, name))))
		must(t, os.Chmod(folder, 0o700))
	}
}

// silent searches everything that key server, vault and storefront keep and say.
func (k *keyExchange) silent(t *testing.T, markers []search.Marker) {
	t.Helper()
	var folders []string
	for _, name := range []string{"keyserver", "keyserver.log", "vault", "vault.log", "storefront", "storefront.log"} {
		folders = append(folders, filepath.Join(k.Dir(), name))
	}
	found, read, err := search.Folders(markers, folders...)
	must(t, err)
	for _, f := range found {
		t.Error(f)
	}
	if read < 100_000 {
		t.Errorf("only %d bytes were searched", read)
	}
}

// client trusts the stage's authority, and shows a certificate if it is named.
func (k *keyExchange) client(t *testing.T, certificate string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(k.CA())
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(k.tls(certificate+".pem"), k.tls(certificate+"-key.pem"))
		must(t, err)
		c.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: c}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (k *keyExchange) tls(name string) string { return filepath.Join(k.Dir(), "tls", name) }

// post sends JSON and decodes what comes back, or returns the problem.
func (k *keyExchange) post(ctx context.Context, url, token string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := k.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problem.Read(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// mint is a storefront that gives out access tokens for anybody, as this one does on a new device: it cannot know who asks.
func (k *keyExchange) mint(t *testing.T, owner policies.OwnerID) string {
	t.Helper()
	var token storefrontapi.AccessToken
	must(t, k.post(t.Context(), k.StorefrontURL()+storefrontapi.PathRestoreTokens, "", storefrontapi.RestoreToken{Subject: policies.IdentityID(owner)}, &token))
	return token.Token
}

// guess asks about one password with an access token, and proves nothing.
func (k *keyExchange) guess(ctx context.Context, token string, owner policies.OwnerID) (*api.Evaluated, error) {
	a, err := password.NewAttempt(owner, []byte("a guess"), nil)
	if err != nil {
		return nil, err
	}
	blinded := a.Blinded()
	out := new(api.Evaluated)
	return out, k.post(ctx, k.url+api.PathEvaluate, token, api.Evaluation{Owner: owner, Blinded: blinded[:]}, out)
}
