package hardware

import (
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// A Survey is what is installed of one supported device, found without a PIN and without loading the module.
type Survey struct {
	Profile string        `json:"profile"`
	Module  string        `json:"module,omitempty"` // the library; empty: not installed
	SHA256  policies.Hash `json:"sha256,omitzero"`
	Folder  string        `json:"folder,omitempty"` // where it keeps tokens
	Version string        `json:"version,omitempty"`
	Tokens  []Seen        `json:"tokens,omitempty"`
	// Faults are what stands in the way, each with what to do about it.
	Faults []string `json:"faults,omitempty"`
}

// Seen is one token as the vendor's own tool lists it.
type Seen struct {
	Label       string `json:"label,omitempty"`
	Serial      string `json:"serial,omitempty"`
	Model       string `json:"model,omitempty"`
	Initialised bool   `json:"initialised"`
}

// Survey looks for the device. module, if not empty, is the library to look at.
func (p Profile) Survey(ctx context.Context, module string) Survey {
	s := Survey{Profile: p.Name}
	facts, err := p.PKCS11(module)
	s.Module, s.Folder = facts.Module, facts.Folder
	if err != nil {
		s.Faults = append(s.Faults, err.Error())
	}
	if s.Module == "" {
		return s
	}
	described, err := describeModule(s.Module)
	if err != nil {
		s.Faults = append(s.Faults, err.Error())
	}
	s.SHA256 = described.SHA256
	if p.list != nil && len(s.Faults) == 0 {
		p.list(ctx, &s)
	}
	return s
}

// softHSMList asks softhsm2-util, which needs no PIN for this.
func softHSMList(ctx context.Context, s *Survey) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := exec.CommandContext(ctx, "softhsm2-util", "--version").Output()
	if err != nil {
		s.Faults = append(s.Faults, "version and tokens are not known: softhsm2-util: "+err.Error()+"; install the package softhsm2")
		return
	}
	s.Version = strings.TrimSpace(string(version))
	slots, err := exec.CommandContext(ctx, "softhsm2-util", "--show-slots", "--module", s.Module).Output() // #nosec G204 -- the library that the operator named; no shell
	if err != nil {
		s.Faults = append(s.Faults, "tokens are not known: softhsm2-util --show-slots: "+err.Error()+"; can this user write to the token folder?")
		return
	}
	s.Tokens = parseSlots(string(slots))
}

// parseSlots reads the output of softhsm2-util --show-slots: a block for each slot, a name and a value in each line.
func parseSlots(text string) []Seen {
	var tokens []Seen
	var inToken bool
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok && strings.HasPrefix(line, "Slot "):
			inToken = false
		case name == "Token info":
			inToken = true
			tokens = append(tokens, Seen{})
		case !inToken:
		case name == "Label":
			tokens[len(tokens)-1].Label = value
		case name == "Serial number":
			tokens[len(tokens)-1].Serial = value
		case name == "Model":
			tokens[len(tokens)-1].Model = value
		case name == "Initialized":
			tokens[len(tokens)-1].Initialised = value == "yes"
		}
	}
	return tokens
}
