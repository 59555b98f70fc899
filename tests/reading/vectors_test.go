package reading

import (
	"os/exec"
	"regexp"
	"testing"
)

// TestVectors runs every case of every file in tests/vectors through the JavaScript. A file or operation without a handler fails.
func TestVectors(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), ready(t), "--test", "--test-reporter=tap", "test/vectors.test.js").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, regexp.MustCompile(`(?ms)^ *not ok.*?\.\.\.$`).Find(out))
	}
	passed := regexp.MustCompile(`(?m)^# pass (\d+)$`).FindSubmatch(out)
	if passed == nil || len(passed[1]) < 3 {
		t.Fatalf("it passes, but does not say how many:\n%s", out)
	}
	t.Logf("node passed %s tests: one for each case, file and the list of files", passed[1])
}
