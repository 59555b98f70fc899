package sockets

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Announce tells other programs where a daemon listens, by the names of its doors, in a JSON file that is there whole or not at all. Without a path nobody asked.
func Announce(path string, addresses map[string]string) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(map[string]any{"addresses": addresses})
	if err != nil {
		return err
	}
	if err := replace(path, append(text, '\n')); err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	return nil
}

func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ready-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // is gone if it was renamed
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
