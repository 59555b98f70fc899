package hardware

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/pkcs11"
)

const testLabel = "sallyport test"

// die names the step at whose beginning a ceremony in a child process of a test kills itself.
const die = "SALLYPORT_TEST_DIE_AT"

// workerArgument makes this program a token worker.
const workerArgument = "token-worker"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArgument {
		if err := pkcs11.Serve(os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if step := os.Getenv(die); step != "" {
		dieAt(step)
	}
	os.Exit(m.Run())
}

// bench is a SoftHSM token folder of its own and a ceremony that would be held on it.
type bench struct {
	dir      string // what --dir names
	beside   string
	ceremony *Ceremony
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return benchWith(t, func(string) {})
}

// benchWith is a bench with what fill puts into its folder.
func benchWith(t testing.TB, fill func(beside string)) *bench {
	t.Helper()
	beside := t.TempDir()
	conf, err := NewDevelopmentToken(beside)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	fill(beside)
	for _, name := range []string{"so.pin", "user.pin"} {
		if err := NewSecretFile(filepath.Join(beside, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{dir: filepath.Join(beside, "vault"), beside: beside}
	b.ceremony = ceremonyAt(t.Fatal, beside)
	return b
}

// ceremonyAt is the ceremony of a bench; a child process makes the same one.
func ceremonyAt(fatal func(...any), beside string) *Ceremony {
	pin := func(name string) pkcs11.Secret {
		s, err := ReadPIN("file:"+filepath.Join(beside, name), false)
		if err != nil {
			fatal(err)
		}
		return s
	}
	return &Ceremony{
		Dir: filepath.Join(beside, "vault"), Profile: "softhsm", Label: testLabel,
		OfficerPIN: pin("so.pin"), UserPIN: pin("user.pin"),
		CeremonyKey: filepath.Join(beside, "ceremony.key"),
		Passphrase:  func() ([]byte, error) { return []byte(testPassphrase), nil },
		Storefront:  "https://store.example", Owners: "https://vault.example:8443",
		cost: leastCost, // the full one is most of a test's time; TestScripts pays it
	}
}

const testPassphrase = "correct horse battery"

func (b *bench) pin(t testing.TB) pkcs11.Secret {
	t.Helper()
	s, err := ReadPIN("file:"+filepath.Join(b.beside, "user.pin"), false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// whole is what a ceremony left beside and in its folder, by path. Each test works on a copy, which spares it seconds of
// looking for primes.
var whole map[string]kept

type kept struct {
	mode fs.FileMode
	data []byte
}

// held is a bench on which the ceremony was held.
func held(t testing.TB) (*bench, *Record) {
	t.Helper()
	if whole == nil {
		b := newBench(t)
		if _, err := b.ceremony.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		files := make(map[string]kept)
		err := filepath.WalkDir(b.beside, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "softhsm2.conf" { // which names the folder
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			path, err = filepath.Rel(b.beside, path)
			files[path] = kept{info.Mode().Perm(), data}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		whole = files
	}
	b := benchWith(t, func(beside string) {
		for path, k := range whole {
			path = filepath.Join(beside, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, k.data, k.mode); err != nil {
				t.Fatal(err)
			}
		}
	})
	record, err := ReadRecord(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, record
}

func dieAt(step string) {
	c := ceremonyAt(func(v ...any) { panic(v) }, os.Getenv("SALLYPORT_TEST_BESIDE"))
	c.Progress = func(s string) {
		if s == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _ = c.Run(ctx)
	os.Exit(99) // the step never came
}
