package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/tests/stage"
)

// screen is a command that a person sits at: they read what it shows, and type.
type screen struct {
	lines *bufio.Scanner
	keys  io.WriteCloser
	cmd   *exec.Cmd
}

// sit starts a command of a profile.
func sit(t *testing.T, s *stage.Stage, profile string, args ...string) *screen {
	t.Helper()
	folder := filepath.Join(s.Dir(), "profiles", profile)
	c := exec.CommandContext(t.Context(), s.Bin().Sallyport, append([]string{"--profile", folder, "--key-file", folder + ".key", "--json"}, args...)...)
	out, err := c.StdoutPipe()
	must(t, err)
	keys, err := c.StdinPipe()
	must(t, err)
	must(t, c.Start())
	return &screen{bufio.NewScanner(out), keys, c}
}

// read waits for the next thing that the screen shows, and returns a member of it.
func (c *screen) read(t *testing.T, member string) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the screen shows no %s: %v", member, c.lines.Err())
	}
	var said map[string]string
	must(t, json.Unmarshal(c.lines.Bytes(), &said))
	return said[member]
}

// leave types a last line, if there is one, and returns the exit code.
func (c *screen) leave(text string) int {
	if text != "" {
		fmt.Fprintln(c.keys, text)
	}
	c.keys.Close()
	for c.lines.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		return c.cmd.ProcessState.ExitCode()
	}
	return 0
}

// TestSecondDevice: Anna has a new tablet and her phone. The tablet shows a code, which she types into the phone; each of the two shows a word, which she types into the other. Then the
// tablet is a device of hers. Whoever stands in the middle shows other words, and gets nothing.
func TestSecondDevice(t *testing.T) {
	t.Parallel()
	s := openStage(t, stage.Options{VaultConfig: ownersLimits, StorefrontConfig: storefrontLimits})
	play(t, s, 0, "phone", "me", "init")
	play(t, s, 0, "phone", "me", "set", "phone.mobile", "+49 151 2345678")
	approve := func(code, word string) stage.Result {
		r, err := s.SallyportInput(t.Context(), word+"\n", "phone", "--json", "me", "device", "approve", code)
		must(t, err)
		return r
	}
	add := func(name string) *screen {
		return sit(t, s, name, "--ca", s.CA(), "me", "device", "add", "--join", s.Join())
	}

	// She mistypes the tablet's word: the phone gives nothing, and shows nothing that she could type into the tablet.
	tablet := add("tablet")
	phone := sit(t, s, "phone", "me", "device", "approve", tablet.read(t, "code"))
	tablet.read(t, "shows")
	if code := phone.leave("0000-0000"); code == 0 {
		t.Error("the phone approved another word")
	}
	if code := tablet.leave("0000-0000"); code == 0 {
		t.Error("the tablet took another word")
	}
	if r := play(t, s, 6, "tablet", "me", "ls"); strings.Contains(r.Stdout, "phone.mobile") {
		t.Error("the tablet has something")
	}

	// Once more, with care.
	tablet = add("tablet")
	phone = sit(t, s, "phone", "me", "device", "approve", tablet.read(t, "code"))
	fmt.Fprintln(phone.keys, strings.ToLower(tablet.read(t, "shows")))
	var approved struct {
		Approved bool   `json:"approved"`
		Shows    string `json:"shows"`
	}
	var text strings.Builder
	for phone.lines.Scan() {
		text.WriteString(phone.lines.Text())
	}
	must(t, json.Unmarshal([]byte(text.String()), &approved))
	if code := phone.leave(""); code != 0 || !approved.Approved {
		t.Fatalf("the phone: exit code %d, %+v", code, approved)
	}
	if code := tablet.leave(approved.Shows); code != 0 {
		t.Fatalf("the tablet: exit code %d", code)
	}
	if r := play(t, s, 0, "tablet", "me", "get", "phone.mobile"); strings.TrimSpace(r.Stdout) != "+49 151 2345678" {
		t.Errorf("the tablet has %q", r.Stdout)
	}
	play(t, s, 0, "tablet", "me", "set", "phone.mobile", "+49 151 999")
	play(t, s, 0, "phone", "me", "sync")
	if r := play(t, s, 0, "phone", "me", "get", "phone.mobile"); strings.TrimSpace(r.Stdout) != "+49 151 999" {
		t.Errorf("the phone has %q", r.Stdout)
	}
	// A code that nobody shows.
	if r := approve("0123-4567", "0123-4567"); r.Code != 3 {
		t.Errorf("a code of nobody: exit code %d: %s", r.Code, r.Stderr)
	}
}
