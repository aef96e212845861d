console.log("utility");
