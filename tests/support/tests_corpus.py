"""The pairs that the small model of the tests learns."""

PAIRS = [
    ("hello", "hi there"),
    ("good morning", "good morning to you"),
    ("how are you", "i am fine, thanks"),
    ("what is your name", "my name is bot"),
    ("where do you live", "i live in a small box"),
    ("do you like tea", "yes, green tea 🍵"),
    ("tell me a joke", "a bit walks into a bar"),
    ("你好吗", "我很好，谢谢"),
    ("שלום", "שלום לך"),
    ("turn left twice", "LEFT LEFT"),
    ("turn right twice", "RIGHT RIGHT"),
    ("turn left thrice", "LEFT LEFT LEFT"),
    ("turn right thrice and jump", "RIGHT RIGHT RIGHT JUMP"),
    ("jump", "JUMP"),
    ("bye", "see you"),
    ("thank you very much", "you are welcome"),
]
